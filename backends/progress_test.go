// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A listing whose first entry comes after minutes of bytes is no silence; one without a
// byte is, and a consumer may take its time.
func TestClient_longAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bytes := true
		b := &scripted{list: func(ctx context.Context, _ int) iter.Seq2[Entry, error] {
			return func(yield func(Entry, error) bool) {
				for range 20 {
					select {
					case <-time.After(10 * time.Second):
					case <-ctx.Done():
						yield(Entry{}, ctx.Err())
						return
					}
					if bytes {
						progressed(ctx)
					}
				}
				if !yield(entry("a"), nil) {
					return
				}
				progressed(ctx)
				if ctx.Err() != nil {
					t.Errorf("after a pause of the consumer: %v", ctx.Err())
				}
			}
		}}
		c := NewClient("r", b, ClientOptions{})
		var seen atomic.Int64
		ctx := OnProgress(t.Context(), func() { seen.Add(1) })
		for e, err := range c.List(ctx, "c") {
			if err != nil || e.Image.Ref.Name != "a" {
				t.Errorf("%+v, %v", e, err)
			}
			time.Sleep(time.Hour)
		}
		if seen.Load() != 21 || b.tries.Load() != 1 {
			t.Errorf("told %d times in %d tries", seen.Load(), b.tries.Load())
		}
		bytes = false
		for _, err := range c.List(t.Context(), "c") {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("silence: %v", err)
			}
		}
	})
}

// The bytes of a body are what is told.
func TestOnProgress(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<20)) })
	var outer, inner atomic.Int64
	ctx := OnProgress(OnProgress(t.Context(), func() { outer.Add(1) }), func() { inner.Add(1) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient(t, HTTPOptions{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Fatal(n, err)
	}
	if outer.Load() < 2 || outer.Load() != inner.Load() {
		t.Errorf("told %d and %d times", outer.Load(), inner.Load())
	}
}
