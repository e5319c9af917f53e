// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/catalog/verbs"
)

// A verb that changes the tree returns when the mount shows it; one that only looks
// does not wait.
func TestVerbs_settle(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"local", "socket"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var settled atomic.Int64
			h := Handler(newVerbs(t), Options{Settle: func(context.Context) error { settled.Add(1); return nil }})
			c := Local(h)
			if kind == "socket" {
				var err error
				if c, err = Dial(t.Context(), serve(t, h)); err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			file, err := filepath.Abs(image)
			if err != nil {
				t.Fatal(err)
			}
			want := int64(0)
			check := func(verb string, err error, waits bool) {
				t.Helper()
				if waits {
					want++
				}
				if n := settled.Load(); err != nil || n != want {
					t.Errorf("%s: %v; the mount was waited for %d times, want %d", verb, err, n, want)
				}
			}
			_, err = c.Push(t.Context(), file, "a/b:1", verbs.PushOptions{}, nil)
			check("push", err, true)
			_, err = c.Add(t.Context(), file, "a/b:2", verbs.AddOptions{}, nil)
			check("add", err, true)
			_, err = c.Get(t.Context(), "a/b:1")
			check("get", err, false)
			_, err = c.Remove(t.Context(), "a/b:1", "")
			check("remove", err, true)
			_, err = c.Remove(t.Context(), "a/b:1", "")
			if err == nil {
				t.Error("removed twice")
			}
			check("remove what is not there", nil, true)
			for _, refresh := range []bool{false, true} {
				for _, err := range c.Images(t.Context(), verbs.ImagesOptions{Refresh: refresh}) {
					if err != nil {
						t.Fatal(err)
					}
				}
				check("images", nil, refresh)
			}
		})
	}
}

// A mount that cannot be told keeps nobody waiting for long.
func TestVerbs_settleEnds(t *testing.T) {
	t.Parallel()
	h := Handler(newVerbs(t), Options{Settle: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	file, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Local(h).Push(t.Context(), file, "a/b:1", verbs.PushOptions{}, nil); err != nil {
		t.Errorf("Push: %v", err)
	}
}
