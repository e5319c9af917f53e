// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A moody registry is away for a while, in its way.
type moody struct {
	way      string
	requests atomic.Int64
	away     atomic.Bool
}

func (*moody) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, errors.ErrUnsupported
}

func (m *moody) Open(ctx context.Context, _ backends.Image, off, n int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	time.Sleep(10 * time.Millisecond) // the way there
	if m.away.Load() && m.way != "reset after the header" {
		if err := m.fail(ctx); err != nil {
			return nil, err
		}
	}
	return &moodyBody{m: m, ctx: ctx, off: off, left: n}, nil
}

// fail is what a request, or a body, meets while the registry is away.
func (m *moody) fail(ctx context.Context) error {
	switch m.way {
	case "black hole":
		<-ctx.Done()
		return ctx.Err()
	case "503":
		return &backends.DelayError{Err: fmt.Errorf("%w: HTTP 503", backends.ErrUnavailable), After: 2 * time.Second}
	}
	return fmt.Errorf("%w: %s", backends.ErrUnavailable, m.way)
}

type moodyBody struct {
	m         *moody
	ctx       context.Context //nolint:containedctx // of the request
	off, left int64
	dead      bool
}

func (b *moodyBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(5 * time.Millisecond)
	if b.dead = b.dead || b.m.away.Load() && b.m.way != "503"; b.dead {
		return 0, b.m.fail(b.ctx)
	}
	n := min(int64(len(p)), b.left, 64<<10)
	copy(p[:n], numbered(b.off, n))
	b.off, b.left = b.off+n, b.left-n
	return int(n), nil
}

func (*moodyBody) Close() error { return nil }

// A registry that is away for less than its timeout makes readers wait, and nobody
// gets an error: who reads in order, who jumps, who waits for the whole.
func TestAway_readersWait(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"refused", "reset after the header", "black hole", "503"} {
		for _, length := range []time.Duration{300 * time.Millisecond, 30 * time.Second} {
			for _, verify := range []Verification{Lazy, Strict} {
				t.Run(fmt.Sprint(way, " ", length, " ", verify), func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					synctest.Test(t, func(t *testing.T) { outlive(t, dir, way, length, verify) })
				})
			}
		}
	}
}

func outlive(t *testing.T, dir, way string, length time.Duration, verify Verification) {
	t.Helper()
	m := &moody{way: way}
	client := backends.NewClient("lab", m, backends.ClientOptions{})
	c := openCache(t, dir, Options{Verify: verify})
	const size = 96 * mib
	blob, err := c.Blob(t.Context(), client, distantImage(size))
	mustDo(t, err)
	done := make(chan error)
	read := func(off int64) {
		buf := make([]byte, 128<<10)
		_, err := blob.ReadAtContext(t.Context(), buf, off)
		done <- errors.Join(err, compare(buf, off))
	}
	// The background is in full swing when the registry goes.
	go func() {
		buf := make([]byte, size)
		_, err := blob.ReadAtContext(t.Context(), buf[:2*mib], 0)
		if err == nil {
			_, err = blob.ReadAtContext(t.Context(), buf, 0)
		}
		done <- errors.Join(err, compare(buf, 0))
	}()
	time.Sleep(100 * time.Millisecond)
	m.away.Store(true)
	gone := time.Now()
	go func() { done <- blob.Wait(t.Context(), nil) }()
	readers := 2
	for ; time.Since(gone) < length; readers++ {
		go read(size/2 + int64(readers)*mib%(size/3))
		time.Sleep(length / 8)
	}
	m.away.Store(false)
	for range readers {
		if err := <-done; err != nil {
			t.Errorf("a reader while the registry was away: %v", err)
		}
	}
	if took := time.Since(gone); took > length+time.Minute {
		t.Errorf("all came %v after the registry was back", took-length)
	}
	mustDo(t, blob.Close(), c.Close())
}

func compare(got []byte, off int64) error {
	for len(got) > 0 {
		n := min(len(got), mib/2)
		if string(got[:n]) != string(numbered(off, int64(n))) {
			return fmt.Errorf("other bytes at %d", off)
		}
		got, off = got[n:], off+int64(n)
	}
	return nil
}

// One that is away for good ends a wait when the timeout is over. Who asks right
// after that gets the same at once.
func TestAway_forGood(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"refused", "reset after the header", "black hole"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				m := &moody{way: way}
				m.away.Store(true)
				const timeout = 20 * time.Second
				client := backends.NewClient("lab", m, backends.ClientOptions{MaxElapsed: timeout})
				c := openCache(t, dir, Options{})
				blob, err := c.Blob(t.Context(), client, distantImage(8*mib))
				mustDo(t, err)
				start := time.Now()
				for _, least := range []time.Duration{timeout, 0} {
					began := time.Now()
					_, err = blob.ReadAtContext(t.Context(), make([]byte, 100), 0)
					if took := time.Since(began); err == nil || took < least || took > least+6*time.Second {
						t.Errorf("%v after %v, want an error after %v", err, took, least)
					}
				}
				if n := m.requests.Load(); n > 100 {
					t.Errorf("%d requests in %v", n, time.Since(start))
				}
				mustDo(t, blob.Close(), c.Close())
			})
		})
	}
}
