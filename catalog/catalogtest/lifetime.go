// SPDX-License-Identifier: Apache-2.0

package catalogtest

import (
	"errors"
	"io/fs"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/catalog/index"
)

var lifetimeTests = map[string]func(*testing.T, index.Store){
	"twice": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"))
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	},
	"use afterwards": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"))
		seq := s.Scan(nil, nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get([]byte("a")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Get: %v, want fs.ErrClosed", err)
		}
		if err := s.Apply(kv("a", "2")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Apply: %v, want fs.ErrClosed", err)
		}
		if got, err := collect(seq); !errors.Is(err, fs.ErrClosed) || len(got) > 0 {
			t.Errorf("Scan = %q, %v, want fs.ErrClosed", got, err)
		}
	},
	"during use":    closeDuringUse,
	"during a scan": closeDuringScan,
}

// closeDuringUse closes a store that others are busy with: they get answers or
// fs.ErrClosed, and nothing else.
func closeDuringUse(t *testing.T, s index.Store) {
	apply(t, s, many(100)...)
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range cap(started) {
		wg.Go(func() {
			var err error
			for i := 0; err == nil; i++ {
				if i == 3 {
					started <- struct{}{}
				}
				_, getErr := s.Get([]byte("n/000050"))
				_, scanErr := collect(s.Scan(nil, nil))
				err = errors.Join(getErr, scanErr, s.Apply(kv("x", "y")))
			}
			if !errors.Is(err, fs.ErrClosed) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("while closing: %v, want fs.ErrClosed", err)
			}
		})
	}
	for range cap(started) {
		<-started
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
}

// closeDuringScan closes a store in the middle of a scan, whose calls may
// then fail; the scan itself comes to its end, and Close returns.
func closeDuringScan(t *testing.T, s index.Store) {
	apply(t, s, many(100)...)
	closed := make(chan error, 1)
	n := 0
	for _, err := range s.Scan(nil, nil) {
		if err != nil {
			t.Fatalf("after %d pairs: %v", n, err)
		}
		if n == 0 {
			go func() { closed <- s.Close() }()
		}
		if _, err := s.Get([]byte("n/000050")); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Get: %v", err)
		}
		n++
	}
	if n != 100 {
		t.Errorf("%d pairs, want 100", n)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}
