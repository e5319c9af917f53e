// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"sync"
	"testing"
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
