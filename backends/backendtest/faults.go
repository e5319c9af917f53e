// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const html = "<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"

var faultTests = []subtest{
	statusTest("401", status(401, `{}`), backends.ErrUnauthorized),
	statusTest("403", status(403, `{}`), fs.ErrPermission),
	statusTest("404", status(404, `{}`), fs.ErrNotExist),
	statusTest("500", status(500, "oops"), backends.ErrUnavailable),
	statusTest("503", status(503, ""), backends.ErrUnavailable),
	statusTest("429", status(429, `{}`, "Retry-After", "7"), backends.ErrRateLimited),
	{name: "Faults/retry-after", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		r.wire.set(status(429, `{}`, "Retry-After", "7"))
		if _, err := r.Stat(t.Context(), r.seed.Images[0].Ref); backends.RetryAfter(err) != 7*time.Second {
			t.Errorf("after a 429 with Retry-After: 7, RetryAfter(%v) = %v", err, backends.RetryAfter(err))
		}
	}},
	{name: "Faults/reset", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		each(t, s, r, func(t *testing.T, do func(context.Context, caller) error) {
			r.wire.set(reset)
			var err error
			// A busy machine may not come to the answer in time: then it gets more.
			for limit := 50 * time.Millisecond; limit < time.Minute; limit *= 10 {
				err = do(t.Context(), backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: limit}))
				if !errors.Is(err, context.DeadlineExceeded) {
					break
				}
			}
			if !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%v, want ErrUnavailable", err)
			}
		})
	}},
	{name: "Faults/recovers", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, f := range []fault{status(500, "oops"), status(429, "", "Retry-After", "0"), reset} {
			r.wire.set(times(2, f))
			wantImage(t, r, r.seed.Images[0])
		}
	}},
	{name: "Faults/hang", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		each(t, s, r, func(t *testing.T, do func(context.Context, caller) error) {
			r.wire.set(hang)
			c := backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: 60 * time.Millisecond})
			if err := do(t.Context(), c); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a limit: %v, want context.DeadlineExceeded", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := do(ctx, r.client); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with the caller's deadline: %v, want context.DeadlineExceeded", err)
			}
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			if err := do(ctx, r.client); !errors.Is(err, context.Canceled) {
				t.Errorf("with the caller's cancel: %v, want context.Canceled", err)
			}
		})
	}},
	{name: "Faults/truncated", http: true, run: func(t *testing.T, s *suite) {
		bodyTest(t, s, func(body []byte) ([]byte, bool) { return body[:len(body)/2], false })
	}},
	{name: "Faults/short", http: true, run: func(t *testing.T, s *suite) {
		bodyTest(t, s, func(body []byte) ([]byte, bool) { return body[:len(body)/2], true })
	}},
	{name: "Faults/empty", http: true, run: func(t *testing.T, s *suite) {
		bodyTest(t, s, func([]byte) ([]byte, bool) { return nil, true })
	}},
	{name: "Faults/long", http: true, run: func(t *testing.T, s *suite) {
		r, img, want := s.openBig(t)
		r.wire.set(bodies(int64(len(want)), func(body []byte) ([]byte, bool) {
			return append(body, "more than there is"...), true
		}))
		got, err := read(t.Context(), r.client, img, 0, -1)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes of an image of %d", len(got), len(want))
		}
	}},
	{name: "Faults/range-ignored", http: true, run: func(t *testing.T, s *suite) {
		r, img, want := s.openBig(t)
		r.wire.set(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.Header.Del("Range")
			return next.RoundTrip(req)
		})
		got, err := read(t.Context(), r.client, img, 1000, 5000)
		if err == nil && !bytes.Equal(got, want[1000:6000]) {
			t.Errorf("a service that ignores Range: %d wrong bytes without an error", len(got))
		}
	}},
	{name: "Faults/garbage", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		want := r.seed.Images[0]
		img := stat(t.Context(), t, r, want.Ref)
		r.wire.set(status(200, html, "Content-Type", "text/html"))
		if got, err := r.Stat(t.Context(), want.Ref); err == nil && got.Version != img.Version {
			t.Errorf("Stat made %+v of a page of HTML", got)
		} else if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat of a page of HTML: %v, but nothing said that there is no image", err)
		}
		if got, err := read(t.Context(), r.client, img, 0, -1); err == nil {
			t.Errorf("Open took %d bytes of HTML for the image", len(got))
		}
		if !s.Caps.Has(backends.CanList) {
			return
		}
		if got, err := backends.Collect(r.List(t.Context(), "library")); err == nil && len(got) == 0 {
			t.Error("List of a page of HTML is an empty collection: every name would vanish")
		} else if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List of a page of HTML: %v", err)
		}
	}},
	{name: "Faults/metadata-truncated", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		r.wire.set(bodies(1, func(body []byte) ([]byte, bool) { return body[:len(body)/2], false }))
		if got, err := r.Stat(t.Context(), img.Ref); err == nil && got.Version != img.Version {
			t.Errorf("Stat made %+v of half an answer", got)
		} else if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat of half an answer: %v", err)
		}
	}},
	{name: "Faults/push-breaks", http: true, needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		// However many requests a push takes: whichever breaks, the name means
		// the old image or the new one, and success is told only for the new.
		for n := int64(1); n <= 12; n++ {
			r := s.open(t, typical()...)
			old := r.seed.Images[0]
			src := source(content("other", 5000))
			src.Replaces = backends.ReplaceAny
			r.wire.set(nth(n, status(500, "oops")))
			_, err := r.Push(t, old.Ref, src)
			r.wire.set(nil)
			got, readErr := read(t.Context(), r.client, stat(t.Context(), t, r, old.Ref), 0, -1)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if isNew := bytes.Equal(got, content("other", 5000)); !isNew && (err == nil || !bytes.Equal(got, old.Content)) {
				t.Errorf("request %d broken: Push gave %v and left %d other bytes", n, err, len(got))
			}
		}
	}},
}

// A caller is a client or a backend.
type caller interface {
	Stat(context.Context, backends.Ref) (backends.Image, error)
	Open(context.Context, backends.Image, int64, int64) (io.ReadCloser, error)
	List(context.Context, string) iter.Seq2[backends.Entry, error]
}

// each runs fn with every way of asking: for the facts, the bytes, a listing.
func each(t *testing.T, s *suite, r *remote, fn func(t *testing.T, do func(context.Context, caller) error)) {
	t.Helper()
	img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
	t.Run("stat", func(t *testing.T) {
		fn(t, func(ctx context.Context, c caller) error { _, err := c.Stat(ctx, img.Ref); return err })
	})
	r.wire.set(nil)
	t.Run("open", func(t *testing.T) {
		fn(t, func(ctx context.Context, c caller) error { _, err := read(ctx, c, img, 0, -1); return err })
	})
	r.wire.set(nil)
	if s.Caps.Has(backends.CanList) {
		t.Run("list", func(t *testing.T) {
			fn(t, func(ctx context.Context, c caller) error {
				_, err := backends.Collect(c.List(ctx, "library"))
				return err
			})
		})
	}
}

// statusTest lets the service answer everything with f.
func statusTest(name string, f fault, want error) subtest {
	return subtest{name: "Faults/" + name, http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		each(t, s, r, func(t *testing.T, do func(context.Context, caller) error) {
			r.wire.set(f)
			err := do(t.Context(), r)
			// Of a version that is not there any more, "gone" and "changed" are both true.
			if !errors.Is(err, want) && (want != fs.ErrNotExist || !errors.Is(err, backends.ErrChanged)) { //nolint:errorlint // want is the sentinel itself
				t.Errorf("HTTP %s gave %v, want %v", name, err, want)
			}
		})
	}}
}

// openBig opens the backend on one image that is larger than any metadata.
func (s *suite) openBig(t *testing.T) (*remote, backends.Image, []byte) {
	t.Helper()
	big := sized("big/image:1", 300_000)
	r := s.open(t, big)
	return r, stat(t.Context(), t, r, big.Ref), big.Content
}

// bodyTest reads an image whose body was spoilt: what arrives is a prefix of
// it, then there is an error.
func bodyTest(t *testing.T, s *suite, edit func([]byte) ([]byte, bool)) {
	t.Helper()
	r, img, want := s.openBig(t)
	r.wire.set(bodies(int64(len(want)), edit))
	got, err := read(t.Context(), r.client, img, 0, -1)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d of %d bytes came, and the error is %v", len(got), len(want), err)
	}
	if !bytes.HasPrefix(want, got) {
		t.Error("bytes that are not the image's")
	}
}

// nth applies f to the n-th request alone.
func nth(n int64, f fault) fault {
	var count atomic.Int64
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if count.Add(1) == n {
			return f(req, next)
		}
		return next.RoundTrip(req)
	}
}
