// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends/sched"
)

// scripted is a backend whose answers are functions: what is tested here is
// what a Client makes of them.
type scripted struct {
	stat func(ctx context.Context, try int) (Image, error)
	open func(ctx context.Context, off, n int64) (io.ReadCloser, error)
	list func(ctx context.Context, try int) iter.Seq2[Entry, error]
	push func(ctx context.Context, try int, src Source) (Image, error)
	del  func(try int) error

	tries  atomic.Int64
	closed atomic.Int64
}

func (s *scripted) try() int { return int(s.tries.Add(1)) }

func (s *scripted) Stat(ctx context.Context, _ Ref) (Image, error) { return s.stat(ctx, s.try()) }
func (s *scripted) Open(ctx context.Context, _ Image, off, n int64) (io.ReadCloser, error) {
	return s.open(ctx, off, n)
}
func (s *scripted) List(ctx context.Context, _ string) iter.Seq2[Entry, error] {
	return s.list(ctx, s.try())
}
func (s *scripted) Push(ctx context.Context, _ Ref, src Source) (Image, error) {
	return s.push(ctx, s.try(), src)
}
func (s *scripted) Delete(context.Context, Image) error { return s.del(s.try()) }
func (s *scripted) Close() error                        { s.closed.Add(1); return nil }

var (
	testRef   = Ref{Collection: "c", Name: "i", Tag: "t"}
	testImage = Image{Ref: testRef, Size: 10, Version: "v"}
)

// failing answers the first len(errs) tries with errs.
func failing(errs ...error) *scripted {
	return &scripted{stat: func(_ context.Context, try int) (Image, error) {
		if try <= len(errs) {
			return Image{}, errs[try-1]
		}
		return testImage, nil
	}}
}

func TestClient_retries(t *testing.T) {
	t.Parallel()
	refused := &url.Error{Op: "Get", URL: "https://r/x?sig=secret", Err: &net.OpError{Op: "dial", Err: syscall.EACCES}}
	tests := map[string]struct {
		err   error
		tries int64
		want  error
	}{
		"unavailable":       {fmt.Errorf("%w: HTTP 503", ErrUnavailable), 3, nil},
		"rate":              {ErrRateLimited, 3, nil},
		"silence":           {context.DeadlineExceeded, 3, nil},
		"cut":               {io.ErrUnexpectedEOF, 3, nil},
		"refused":           {refused, 3, nil},
		"inner cancel":      {context.Canceled, 3, nil},
		"not found":         {fs.ErrNotExist, 1, fs.ErrNotExist},
		"unauthorized":      {ErrUnauthorized, 1, fs.ErrPermission},
		"corrupt":           {ErrBadAnswer, 1, ErrBadAnswer},
		"unsupported":       {errors.ErrUnsupported, 1, errors.ErrUnsupported},
		"unknown":           {errors.New("odd"), 1, nil},
		"permanent":         {permanent(ErrUnavailable), 1, ErrUnavailable},
		"permission inside": {fmt.Errorf("%w: %w", ErrUnavailable, fs.ErrPermission), 3, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := failing(tt.err, tt.err)
				_, err := NewClient("r", b, ClientOptions{}).Stat(t.Context(), testRef)
				if b.tries.Load() != tt.tries || tt.want != nil && !errors.Is(err, tt.want) || (err == nil) != (tt.tries == 3) {
					t.Errorf("%d tries, %v; want %d and %v", b.tries.Load(), err, tt.tries, tt.want)
				}
			})
		})
	}
}

// What a last try had no time to be told is what the one before was told.
func TestClient_lastTry(t *testing.T) {
	t.Parallel()
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{stat: func(ctx context.Context, _ int) (Image, error) {
				select {
				case <-time.After(40 * time.Millisecond):
					return Image{}, ErrUnavailable
				case <-ctx.Done():
					return Image{}, ctx.Err()
				}
			}}
			_, err := NewClient("r", b, ClientOptions{MaxElapsed: time.Second}).Stat(Demanded(t.Context(), nil), testRef)
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("run %d: %v after %d tries, want what the service said", i, err, b.tries.Load())
			}
		})
	}
}

func TestClient_errorText(t *testing.T) {
	t.Parallel()
	b := failing(permanent(&url.Error{Op: "Get", URL: "https://me:secret@r/x?X-Amz-Signature=secret", Err: ErrUnavailable}))
	_, err := NewClient("lab", b, ClientOptions{}).Stat(t.Context(), testRef)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Op != "stat" || e.Remote != "lab" || e.Ref != testRef || !errors.Is(err, ErrUnavailable) {
		t.Errorf("%#v", err)
	}
	if text := err.Error(); !strings.HasPrefix(text, "stat lab://c/i:t: ") || strings.Contains(text, "secret") {
		t.Errorf("text: %s", text)
	}
}

func TestClient_retryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := failing(&DelayError{ErrRateLimited, 20 * time.Second})
		if _, err := NewClient("r", b, ClientOptions{}).Stat(t.Context(), testRef); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 20*time.Second || d > 23*time.Second {
			t.Errorf("waited %v for a Retry-After of 20 s", d)
		}
		// Longer than the operation may take: the answer comes at once.
		start = time.Now()
		b = failing(&DelayError{ErrRateLimited, 2 * time.Minute})
		_, err := NewClient("r", b, ClientOptions{}).Stat(t.Context(), testRef)
		if !errors.Is(err, ErrRateLimited) || RetryAfter(err) != 2*time.Minute || time.Since(start) > 0 || b.tries.Load() != 1 {
			t.Errorf("%v after %v and %d tries", err, time.Since(start), b.tries.Load())
		}
		// As with the caller's own deadline.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err = NewClient("r", failing(&DelayError{ErrRateLimited, 20 * time.Second}), ClientOptions{}).Stat(ctx, testRef); !errors.Is(err, ErrRateLimited) {
			t.Errorf("%v, want ErrRateLimited", err)
		}
	})
}

// A service that has had enough is not asked before it wants to be: others than who was
// told do not try. What is read is tried all the same.
func TestClient_limit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		wait time.Duration
	}{
		"said so":  {&DelayError{fmt.Errorf("%w: HTTP 429", ErrRateLimited), 5 * time.Hour}, 5 * time.Hour},
		"503":      {&DelayError{fmt.Errorf("%w: HTTP 503", ErrUnavailable), 5 * time.Minute}, 5 * time.Minute},
		"unsaid":   {fmt.Errorf("%w: HTTP 429", ErrRateLimited), quotaPause},
		"of one":   {permanent(ErrRateLimited), 0},
		"no limit": {fs.ErrPermission, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &scripted{
					stat: func(context.Context, int) (Image, error) { return Image{}, tt.err },
					list: func(context.Context, int) iter.Seq2[Entry, error] { return entries(tt.err) },
					open: func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, permanent(tt.err) },
				}
				c := NewClient("r", b, ClientOptions{MaxElapsed: 20 * time.Second})
				_, err := c.Stat(t.Context(), testRef)
				b.tries.Store(0)
				start := time.Now()
				for range 10 {
					_, again := c.Stat(t.Context(), testRef)
					if tt.wait == 0 {
						continue
					}
					if !errors.Is(again, classify(tt.err)) && !errors.Is(again, ErrRateLimited) && !errors.Is(again, ErrUnavailable) || RetryAfter(again) <= tt.wait-time.Minute ||
						!strings.Contains(again.Error(), "it is not asked before") {
						t.Fatalf("first %v, then %v", err, again)
					}
				}
				if n := b.tries.Load(); (n == 0) != (tt.wait > 0) || tt.wait > 0 && time.Since(start) > 0 {
					t.Errorf("%d tries in %v, though the service has had enough", n, time.Since(start))
				}
				if tt.wait == 0 {
					return
				}
				if _, err := c.Open(t.Context(), testImage, 0, -1); err == nil || b.tries.Load() != 0 && name == "" {
					t.Error(err)
				}
				// A listing is another question.
				for range 2 {
					if _, err := Collect(c.List(t.Context(), "")); err == nil {
						t.Error("a listing of a service that has had enough")
					}
				}
				time.Sleep(tt.wait + tt.wait/10 + time.Second)
				b.tries.Store(0)
				_, _ = c.Stat(t.Context(), testRef)
				if b.tries.Load() == 0 {
					t.Error("not asked when the time was over")
				}
			})
		})
	}
}

func TestClient_silence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{stat: func(ctx context.Context, _ int) (Image, error) {
			<-ctx.Done()
			return Image{}, ctx.Err()
		}}
		start := time.Now()
		_, err := NewClient("r", b, ClientOptions{MaxElapsed: time.Minute}).Stat(t.Context(), testRef)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || time.Since(start) > time.Minute || b.tries.Load() < 2 {
			t.Errorf("%v after %v and %d tries", err, time.Since(start), b.tries.Load())
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start = time.Now()
		if _, err = NewClient("r", b, ClientOptions{}).Stat(ctx, testRef); !errors.Is(err, context.Canceled) || time.Since(start) > time.Second {
			t.Errorf("%v after %v, want context.Canceled after 1 s", err, time.Since(start))
		}
	})
}

// A registry that does not answer costs one operation its retries, and the
// next ones nothing; once it is back, it is asked again.
func TestClient_breaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		b := &scripted{stat: func(context.Context, int) (Image, error) {
			if up.Load() {
				return testImage, nil
			}
			return Image{}, ErrUnavailable
		}}
		c := NewClient("r", b, ClientOptions{})
		if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) || b.tries.Load() != sched.SilentTries {
			t.Errorf("%v after %d tries", err, b.tries.Load())
		}
		start := time.Now()
		for range 100 {
			if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if b.tries.Load() != sched.SilentTries || time.Since(start) > 0 {
			t.Errorf("%d more tries, %v", b.tries.Load()-sched.SilentTries, time.Since(start))
		}
		time.Sleep(sched.BreakerMin + time.Second)
		_, err := c.Stat(t.Context(), testRef)
		if !errors.Is(err, ErrUnavailable) || b.tries.Load() != sched.SilentTries+1 {
			t.Errorf("%v after %d probes, want one", err, b.tries.Load()-sched.SilentTries)
		}
		up.Store(true)
		if _, err := c.Stat(t.Context(), testRef); err == nil {
			t.Error("asked before the pause was over")
		}
		time.Sleep(2*sched.BreakerMin + time.Second)
		for range 3 {
			if _, err := c.Stat(t.Context(), testRef); err != nil {
				t.Error(err)
			}
		}
	})
}

// Who waited for a slot when the breaker opened is not let through either.
func TestClient_breakerCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{stat: func(context.Context, int) (Image, error) {
			time.Sleep(time.Second)
			return Image{}, ErrUnavailable
		}}
		c := NewClient("r", b, ClientOptions{Concurrency: 10})
		start := time.Now()
		var crowd sync.WaitGroup
		for range 1000 {
			crowd.Go(func() {
				if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) {
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		if n := b.tries.Load(); n > 10+sched.SilentTries || time.Since(start) > 3*time.Second {
			t.Errorf("%d tries, %v", n, time.Since(start))
		}
	})
}

// Once a long operation was answered, nobody waits for its end, though it may
// have begun as the one probe.
func TestClient_breakerLongProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{
			list: func(context.Context, int) iter.Seq2[Entry, error] { return entries(nil, entry("a"), entry("b")) },
			push: func(ctx context.Context, _ int, src Source) (Image, error) {
				httptrace.ContextClientTrace(ctx).GotFirstResponseByte() // as the transport does
				src.Progress(1)
				time.Sleep(time.Minute)
				return testImage, nil
			},
			stat: func(_ context.Context, try int) (Image, error) {
				if try <= sched.SilentTries {
					return Image{}, ErrUnavailable
				}
				return testImage, nil
			},
		}
		for name, probe := range map[string]func(c *Client, then func()){
			"list": func(c *Client, then func()) {
				for range c.List(t.Context(), "c") {
					then()
				}
			},
			"push": func(c *Client, then func()) {
				src := pushSource("x")
				src.Progress = func(int64) { then() }
				if _, err := c.Push(t.Context(), testRef, src); err != nil {
					t.Errorf("push: %v", err)
				}
			},
		} {
			b.tries.Store(0)
			c := NewClient("r", b, ClientOptions{})
			if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			time.Sleep(sched.BreakerMin + time.Second)
			asked := 0
			probe(c, func() {
				asked++
				if _, err := c.Stat(t.Context(), testRef); err != nil {
					t.Errorf("during a %s that was answered: %v", name, err)
				}
			})
			if asked == 0 {
				t.Errorf("the %s did not begin", name)
			}
		}
	})
}

// An image whose page is broken does not keep others from being read: the
// service answers.
func TestClient_breakerHearsAnswers(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer srv.Close()
	hc := NewHTTPClient(HTTPOptions{})
	defer hc.CloseIdleConnections()
	b := &scripted{stat: func(ctx context.Context, _ int) (Image, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
		if err != nil {
			return Image{}, err
		}
		resp, err := hc.Do(req)
		if err != nil {
			return Image{}, err
		}
		resp.Body.Close()
		return Image{}, permanent(ErrUnavailable)
	}}
	c := NewClient("r", b, ClientOptions{})
	for i := range 3 * sched.SilentTries {
		if _, err := c.Stat(t.Context(), testRef); !errors.Is(err, ErrUnavailable) || b.tries.Load() != int64(i+1) {
			t.Fatalf("%v, %d tries of %d", err, b.tries.Load(), i+1)
		}
	}
}

func bodyOf(text string) func(context.Context, int64, int64) (io.ReadCloser, error) {
	return func(context.Context, int64, int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

func TestClient_bodyLength(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sent    string
		size    int64
		off, n  int64
		want    string
		wantErr error
	}{
		{"0123456789", 10, 0, -1, "0123456789", nil},
		{"0123456789", -1, 0, -1, "0123456789", nil},
		{"01234", 10, 0, -1, "01234", io.ErrUnexpectedEOF},
		{"01234", 10, 0, 8, "01234", io.ErrUnexpectedEOF},
		{"01234", -1, 0, 8, "01234", nil},
		{"0123456789abc", 10, 0, -1, "0123456789", nil},
		{"0123456789", 10, 0, 4, "0123", nil},
		{"89", 10, 8, 100, "89", nil},
		{"", 10, 10, 5, "", nil},
		{"never asked for", 10, 3, 0, "", nil},
	}
	for _, tt := range tests {
		c := NewClient("r", &scripted{open: bodyOf(tt.sent)}, ClientOptions{})
		body, err := c.Open(t.Context(), Image{Ref: testRef, Size: tt.size, Version: "v"}, tt.off, tt.n)
		if err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		got, err := io.ReadAll(body)
		if string(got) != tt.want || !errors.Is(err, tt.wantErr) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
		body.Close()
	}
}

// Bodies hold slots until they were read or closed, and leave some to others.
func TestClient_slots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{open: bodyOf("0123456789"), stat: func(context.Context, int) (Image, error) { return testImage, nil }}
		c := NewClient("r", b, ClientOptions{Concurrency: 4})
		var open []io.ReadCloser
		for range 3 {
			body, err := c.Open(t.Context(), testImage, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, body)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Open(ctx, testImage, 0, -1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fourth body: %v", err)
		}
		if _, err := c.Stat(t.Context(), testRef); err != nil {
			t.Errorf("Stat beside three bodies: %v", err)
		}
		open[0].Close()
		open[0].Close()
		if _, err := io.ReadAll(open[1]); err != nil {
			t.Error(err)
		}
		for range 2 {
			body, err := c.Open(t.Context(), testImage, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, body)
		}
		if _, err := open[0].Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("read of a closed body: %v", err)
		}
		for _, body := range open {
			body.Close()
		}
		if !c.sched.Idle() {
			t.Error("not all slots are free")
		}
	})
}

func entry(name string) Entry {
	return Entry{Image: Image{Ref: Ref{Collection: "c", Name: name, Tag: "t"}, Version: "v"}}
}

func entries(err error, all ...Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

func TestClient_list(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{list: func(_ context.Context, try int) iter.Seq2[Entry, error] {
			if try == 1 {
				return entries(ErrUnavailable)
			}
			return entries(nil, entry("one"), entry(".."), entry("a\x00b"), Entry{Collection: "c/sub"}, Entry{Collection: "elsewhere"},
				Entry{Image: Image{Ref: testRef, Digest: "sha256:../../etc/passwd"}}, entry("two"))
		}}
		c := NewClient("r", b, ClientOptions{})
		got, err := Collect(c.List(t.Context(), "c"))
		if err != nil || len(got) != 3 || c.Hidden() != 4 {
			t.Errorf("%d entries %v, %d hidden, %v", len(got), got, c.Hidden(), err)
		}
		// Once an entry was given out, an error ends the listing.
		b = &scripted{list: func(context.Context, int) iter.Seq2[Entry, error] { return entries(ErrUnavailable, entry("one")) }}
		got, err = Collect(NewClient("r", b, ClientOptions{}).List(t.Context(), "c"))
		if !errors.Is(err, ErrUnavailable) || len(got) != 1 || b.tries.Load() != 1 {
			t.Errorf("%d entries, %v, %d tries", len(got), err, b.tries.Load())
		}
		if _, err := Collect(c.List(t.Context(), "a/../b")); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("a bad collection: %v", err)
		}
	})
}

// A registry of bad names cannot fill the log.
func TestClient_listLog(t *testing.T) {
	t.Parallel()
	bad := make([]Entry, 10_000)
	for i := range bad {
		bad[i] = entry("..")
	}
	b := &scripted{list: func(context.Context, int) iter.Seq2[Entry, error] { return entries(nil, bad...) }}
	var log bytes.Buffer
	c := NewClient("r", b, ClientOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if _, err := Collect(c.List(t.Context(), "c")); err != nil || c.Hidden() != len(bad) {
		t.Errorf("%d hidden, %v", c.Hidden(), err)
	}
	if n := strings.Count(log.String(), "\n"); n != maxLogged+1 || !strings.Contains(log.String(), "count=10000") {
		t.Errorf("%d lines in the log:\n%.2000s", n, log.String())
	}
}

// A consumer may take its time, and ask the same remote for more meanwhile.
func TestClient_listConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{
			list: func(context.Context, int) iter.Seq2[Entry, error] {
				return entries(nil, entry("a"), entry("b"), entry("c"))
			},
			stat: func(context.Context, int) (Image, error) { return testImage, nil },
		}
		c := NewClient("r", b, ClientOptions{Concurrency: 1})
		n := 0
		for e, err := range c.List(t.Context(), "c") {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Stat(t.Context(), e.Image.Ref); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			n++
		}
		if n != 3 {
			t.Errorf("%d entries", n)
		}
	})
}

func pushSource(text string) Source {
	return Source{Content: strings.NewReader(text), Size: int64(len(text)), Digest: "sha256:" + strings.Repeat("0", 64)}
}

func TestClient_push(t *testing.T) {
	t.Parallel()
	t.Run("goes on while it comes further", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{push: func(_ context.Context, try int, src Source) (Image, error) {
				time.Sleep(50 * time.Second)
				src.Progress(int64(try) * LeastProgress)
				if try < 20 {
					return Image{}, &DelayError{ErrRateLimited, time.Second}
				}
				return testImage, nil
			}}
			if _, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, pushSource(strings.Repeat("x", 20*LeastProgress))); err != nil || b.tries.Load() != 20 {
				t.Errorf("%v after %d tries", err, b.tries.Load())
			}
		})
	})
	t.Run("ends when it is stuck", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{push: func(_ context.Context, _ int, src Source) (Image, error) {
				src.Progress(5)
				return Image{}, ErrRateLimited
			}}
			if _, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, pushSource("x")); !errors.Is(err, ErrRateLimited) || b.tries.Load() > maxTries+1 {
				t.Errorf("%v after %d tries", err, b.tries.Load())
			}
		})
	})
	t.Run("ends where each try stores a byte", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{push: func(_ context.Context, try int, src Source) (Image, error) {
				if try > 1000 {
					return Image{}, fs.ErrInvalid
				}
				src.Progress(int64(try))
				return Image{}, ErrUnavailable
			}}
			src := pushSource(strings.Repeat("x", 10*LeastProgress))
			if _, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, src); !errors.Is(err, ErrUnavailable) || b.tries.Load() > maxTries+1 {
				t.Errorf("%v after %d tries", err, b.tries.Load())
			}
		})
	})
	t.Run("what a try reports after its end is dropped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{push: func(_ context.Context, try int, src Source) (Image, error) {
				go func() { // as a transport goes on with a body that was given up
					time.Sleep(time.Minute)
					src.Progress(int64(100 + try))
				}()
				src.Progress(int64(try))
				if try == 1 {
					return Image{}, ErrUnavailable
				}
				return testImage, nil
			}}
			src := pushSource("xxx")
			var got []int64 // without a lock of its own
			src.Progress = func(stored int64) { got = append(got, stored) }
			if _, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, src); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if !slices.Equal(got, []int64{1, 2}) {
				t.Errorf("reported: %v", got)
			}
		})
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := &scripted{push: func(ctx context.Context, _ int, src Source) (Image, error) {
				for range 10 { // reading is a sign of life
					time.Sleep(4 * time.Minute)
					_, _ = src.Content.ReadAt(make([]byte, 1), 0)
				}
				if ctx.Err() != nil {
					t.Error("ended while it was reading")
				}
				<-ctx.Done()
				return Image{}, ctx.Err()
			}}
			if _, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, pushSource("x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
	t.Run("lost answer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			src := pushSource("x")
			b := &scripted{
				push: func(_ context.Context, try int, _ Source) (Image, error) {
					if try == 1 {
						return Image{}, ErrUnavailable
					}
					return Image{}, fs.ErrExist
				},
				stat: func(context.Context, int) (Image, error) {
					img := testImage
					img.Digest = src.Digest
					return img, nil
				},
			}
			if img, err := NewClient("r", b, ClientOptions{}).Push(t.Context(), testRef, src); err != nil || img.Digest != src.Digest {
				t.Errorf("%+v, %v", img, err)
			}
		})
	})
}

func TestClient_delete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &scripted{del: func(try int) error {
			if try == 1 {
				return ErrUnavailable // and it was deleted all the same
			}
			return fs.ErrNotExist
		}}
		c := NewClient("r", b, ClientOptions{})
		if err := c.Delete(t.Context(), testImage); err != nil {
			t.Errorf("the answer to a first try was lost: %v", err)
		}
		if err := c.Delete(t.Context(), testImage); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nothing there: %v", err)
		}
	})
}

// plain can do nothing but what every backend can.
type plain struct{ Backend }

func TestClient_unsupported(t *testing.T) {
	t.Parallel()
	c := NewClient("r", plain{failing()}, ClientOptions{})
	if c.Caps() != 0 {
		t.Errorf("Caps = %v", c.Caps())
	}
	_, errList := Collect(c.List(t.Context(), ""))
	_, errSearch := Collect(c.Search(t.Context(), "x"))
	_, errPush := c.Push(t.Context(), testRef, pushSource("x"))
	_, errShare := c.Share(t.Context(), testImage, "")
	_, errWatch := Collect(c.Watch(t.Context()))
	_, errFile := c.OpenFile(t.Context(), testImage)
	for i, err := range []error{errList, errSearch, errPush, errShare, errWatch, errFile, c.Delete(t.Context(), testImage)} {
		if _, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestClient_readOnly(t *testing.T) {
	t.Parallel()
	b := failing()
	c := NewClient("r", b, ClientOptions{ReadOnly: true})
	if c.Caps().Has(CanPush) || c.Caps().Has(CanDelete) || !c.Caps().Has(CanList) {
		t.Errorf("Caps = %v", c.Caps())
	}
	_, err := c.Push(t.Context(), testRef, pushSource("x"))
	if !errors.Is(err, ErrReadOnly) || !errors.Is(c.Delete(t.Context(), testImage), ErrReadOnly) {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := c.Close(); err != nil || b.closed.Load() != 1 {
			t.Errorf("Close: %v, closed %d times", err, b.closed.Load())
		}
	}
}

// watcher fails now and then.
type watcher struct {
	Backend
	mu    sync.Mutex // guards the field below
	opens int
}

func (w *watcher) Watch(context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		w.mu.Lock()
		w.opens++
		w.mu.Unlock()
		if yield(Change{Collection: "c"}, nil) {
			yield(Change{}, ErrUnavailable)
		}
	}
}

func TestClient_watch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{Backend: failing()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var seen []Change
		for change, err := range NewClient("r", w, ClientOptions{}).Watch(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, change); len(seen) == 5 {
				cancel()
			}
		}
		want := []Change{{Collection: "c"}, {Below: true}, {Collection: "c"}, {Below: true}, {Collection: "c"}}
		if fmt.Sprint(seen) != fmt.Sprint(want) || w.opens != 3 {
			t.Errorf("%v after %d openings, want %v", seen, w.opens, want)
		}
	})
}

// A service whose streams break off at once makes no storm of listings.
func TestClient_watchStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{Backend: failing()}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		all := 0
		for change := range NewClient("r", w, ClientOptions{}).Watch(ctx) {
			if change.Below {
				all++
			}
		}
		if all < 20 || all > 250 {
			t.Errorf("everything changed %d times in ten minutes", all)
		}
	})
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`Get "https://u:p@h/x?X-Amz-Signature=s&a=b": EOF`: `Get "https://h/x?…": EOF`,
		"see http://h/x#frag":                              "see http://h/x#frag",
		"lab://a/b:c":                                      "lab://a/b:c",
		"a@b ? c":                                          "a@b ? c",
		"dial https://h?token=1 and https://i?token=2":     "dial https://h?… and https://i?…",
		"bad header Authorization: Basic bWU6c2VjcmV0MTIz": "bad header Authorization: Basic …",
		"invalid token 'bearer sl.B-4f_x/9=='":             "invalid token 'bearer …'",
		"refused: Basic dXNlcjpwYXNz":                      "refused: Basic …",
		`Bearer realm="https://h/token",service="x"`:       `Bearer realm="https://h/token",service="x"`,
		"bearer token required":                            "bearer token required",
		"basic authentication is off, basic auth_x is on":  "basic authentication is off, basic auth_x is on",
		"no: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s-g_1":   "no: …",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCheckDigest(t *testing.T) {
	t.Parallel()
	for digest, ok := range map[string]bool{
		"": true, "sha256:" + strings.Repeat("a0", 32): true, "md5:" + strings.Repeat("0", 32): true, "sha512:" + strings.Repeat("f", 128): true,
		"sha256:": false, "sha256:" + strings.Repeat("A", 64): false, "sha256:" + strings.Repeat("a", 63): false, "sha1:" + strings.Repeat("a", 40): false,
		"sha256:../" + strings.Repeat("a", 61): false, strings.Repeat("a", 64): false,
	} {
		if err := CheckDigest(digest); (err == nil) != ok || err != nil && !errors.Is(err, ErrBadAnswer) {
			t.Errorf("CheckDigest(%q) = %v", digest, err)
		}
	}
}

func TestReplaceAllowed(t *testing.T) {
	t.Parallel()
	ref := Ref{Collection: "c", Name: "low", Tag: "1"}
	current := Image{Ref: ref, Version: "v"}
	tests := []struct {
		replaces string
		exists   bool
		want     error
	}{
		{"", false, nil}, {"", true, fs.ErrExist}, {"v", true, nil}, {"w", true, ErrChanged}, {"v", false, ErrChanged},
		{ReplaceAny, true, nil}, {ReplaceAny, false, nil},
	}
	for _, tt := range tests {
		src := Source{Replaces: tt.replaces}
		err := src.CreateAllowed()
		if tt.exists {
			err = src.ReplaceAllowed(ref, current)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	// What the service has under another name is not replaced, whatever was allowed.
	for _, replaces := range []string{"", "v", ReplaceAny} {
		err := Source{Replaces: replaces}.ReplaceAllowed(Ref{Collection: "c", Name: "LOW", Tag: "1"}, current)
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "store this as c/low:1") {
			t.Errorf("another name, Replaces %q: %v", replaces, err)
		}
	}
}
