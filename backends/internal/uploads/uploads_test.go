// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

func TestLocks(t *testing.T) {
	t.Parallel()
	var l Locks
	count := map[string]int{"a": 0, "b": 0}
	var mu sync.Mutex // of the map itself: the keys' values are what Locks must guard
	add := func(key string) {
		mu.Lock()
		n := count[key]
		mu.Unlock()
		mu.Lock()
		count[key] = n + 1
		mu.Unlock()
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			key := []string{"a", "b"}[i%2]
			unlock, err := l.Lock(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			add(key)
		})
	}
	wg.Wait()
	if count["a"] != 100 || count["b"] != 100 {
		t.Errorf("%v, want 100 each", count)
	}
	if len(l.held) != 0 {
		t.Errorf("still held: %v", l.held)
	}
	unlock, err := l.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with an ended context: %v", err)
	}
}

func TestUnsaved(t *testing.T) {
	t.Parallel()
	var u Unsaved
	src := backends.Source{Digest: "sha256:1"}
	if got := u.Session("x", src).Load(); got != nil {
		t.Errorf("Load of nothing = %q", got)
	}
	if err := u.Session("x", src).Save([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if got := u.Session("x", src).Load(); string(got) != "state" {
		t.Errorf("Load = %q", got)
	}
	for name, other := range map[string]backends.Source{"y": src, "x": {Digest: "sha256:2"}} {
		if got := u.Session(name, other).Load(); got != nil {
			t.Errorf("Load of another push = %q", got)
		}
	}
	if err := u.Session("x", src).Save(nil); err != nil || u.Session("x", src).Load() != nil {
		t.Errorf("after Save(nil): %q, %v", u.Session("x", src).Load(), err)
	}
	for i := range 3 * maxUnsaved {
		if err := u.Session(fmt.Sprint(i), src).Save([]byte("s")); err != nil {
			t.Fatal(err)
		}
	}
	if len(u.states) > maxUnsaved {
		t.Errorf("%d states are kept", len(u.states))
	}
	own := &state{in: &Unsaved{}}
	if u.Session("x", backends.Source{Session: own}) != backends.Session(own) {
		t.Error("the Session of a source is not used")
	}
}
