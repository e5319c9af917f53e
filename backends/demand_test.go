// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An outage is a registry that fails in its way until it is over.
type outage struct {
	scripted
	opens atomic.Int64
	until time.Time
	over  atomic.Bool // before its time
}

// newOutage begins one. fail is how it fails, a nil one by never answering.
func newOutage(length time.Duration, fail error) *outage {
	o := &outage{until: time.Now().Add(length)}
	answer := func(ctx context.Context) error {
		if o.over.Load() || !time.Now().Before(o.until) {
			return nil
		}
		if fail == nil {
			<-ctx.Done()
			return ctx.Err()
		}
		return fail
	}
	o.open = func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
		o.opens.Add(1)
		if err := answer(ctx); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("0123456789")), nil
	}
	o.stat = func(ctx context.Context, _ int) (Image, error) { return testImage, answer(ctx) }
	return o
}

func readAll(ctx context.Context, c *Client) error {
	body, err := c.Open(ctx, testImage, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.ReadAll(body)
	return err
}

// What a reader waits for comes through once the registry is back, whatever the
// background and look-ups found out meanwhile; those are not kept waiting.
func TestDemanded_outage(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{"refused": ErrUnavailable, "silent": nil} {
		for _, length := range []time.Duration{300 * time.Millisecond, 30 * time.Second} {
			t.Run(name+" "+length.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					o := newOutage(length, fail)
					c := NewClient("r", o, ClientOptions{})
					var all sync.WaitGroup
					for range 20 {
						all.Go(func() { _ = readAll(t.Context(), c) })
					}
					if fail != nil {
						synctest.Wait() // they have failed, all at once
						if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) {
							t.Errorf("a look-up: %v", err)
						}
					}
					start := time.Now()
					for range 3 {
						all.Go(func() {
							if err := readAll(Demanded(t.Context(), nil), c); err != nil {
								t.Errorf("a demanded read: %v", err)
							}
							if late := time.Since(o.until); fail != nil && late > 2*2*time.Second {
								t.Errorf("%v after the registry was back", late)
							}
						})
					}
					for time.Since(start) < length && fail != nil {
						asked := time.Now()
						if _, err := c.Stat(t.Context(), testRef); err == nil || time.Since(asked) > 0 {
							t.Errorf("a look-up: %v after %v", err, time.Since(asked))
						}
						time.Sleep(50 * time.Millisecond)
					}
					all.Wait()
				})
			})
		}
	}
}

// However many readers wait, a registry that is away is asked now and then.
func TestDemanded_turns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(30*time.Second, ErrUnavailable)
		c := NewClient("r", o, ClientOptions{})
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if err := readAll(Demanded(t.Context(), nil), c); err != nil {
					t.Errorf("a demanded read: %v", err)
				}
			})
		}
		time.Sleep(time.Until(o.until) - time.Nanosecond)
		if n := o.opens.Load(); n > 24+30 {
			t.Errorf("%d requests in 30 s", n)
		}
		all.Wait()
	})
}

// It has an end: Timeout.
func TestDemanded_end(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, fail := range []error{ErrUnavailable, nil, &DelayError{ErrRateLimited, time.Hour}} {
			start := time.Now()
			c := NewClient("r", newOutage(time.Hour, fail), ClientOptions{MaxElapsed: 20 * time.Second})
			err := readAll(Demanded(t.Context(), nil), c)
			want := 20 * time.Second
			if RetryAfter(err) > 0 {
				want = 0
			}
			if took := time.Since(start).Round(10 * time.Millisecond); err == nil || took != want {
				t.Errorf("%v gave %v after %v, want %v", fail, err, took, want)
			}
			start = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := readAll(Demanded(ctx, nil), c); err == nil || time.Since(start) > time.Second {
				t.Errorf("%v with the caller's own limit: %v after %v", fail, err, time.Since(start))
			}
		}
	})
}

// What somebody begins to wait for is tried then, not at the end of a long pause.
func TestDemanded_later(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(time.Hour, ErrUnavailable)
		c := NewClient("r", o, ClientOptions{MaxElapsed: time.Minute})
		raised := make(chan struct{})
		done := make(chan error)
		go func() { done <- readAll(Demanded(t.Context(), raised), c) }()
		for o.opens.Load() < 3 {
			time.Sleep(time.Millisecond)
		}
		o.over.Store(true)
		close(raised)
		now := time.Now()
		if err := <-done; err != nil || time.Since(now) > 0 {
			t.Errorf("%v after %v", err, time.Since(now))
		}
	})
}
