// SPDX-License-Identifier: Apache-2.0

package catalogtest

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/catalog/index"
)

var applyTests = map[string]func(*testing.T, index.Store){
	"nothing": func(t *testing.T, s index.Store) {
		apply(t, s)
		wantAll(t, s)
	},
	"in their order": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"), del("a"), kv("a", "2"), kv("b", "1"), del("b"))
		wantAll(t, s, "a=2")
	},
	"delete what is not there": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"))
		apply(t, s, del("0"), del("aa"), del("z"))
		wantAll(t, s, "a=1")
	},
	"all or none": func(t *testing.T, s index.Store) {
		apply(t, s, kv("old", "1"))
		for name, bad := range map[string]index.KV{
			"key":          {Key: make([]byte, index.MaxKey+1), Value: []byte("v")},
			"key (delete)": {Key: make([]byte, index.MaxKey+1)},
			"value":        {Key: []byte("k"), Value: make([]byte, index.MaxValue+1)},
		} {
			err := s.Apply(kv("a", "1"), del("old"), bad, kv("b", "2"))
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("too long a %s: %v, want fs.ErrInvalid", name, err)
			}
		}
		wantAll(t, s, "old=1")
	},
	"seen at once": seenAtOnce,
	"very many": func(t *testing.T, s index.Store) {
		const n = 50_000
		apply(t, s, many(n)...)
		got, err := collect(s.Scan(nil, nil))
		if err != nil || len(got) != n {
			t.Fatalf("%d pairs, %v, want %d", len(got), err, n)
		}
		if want := fmt.Sprintf("n/%06d=%d", n-1, n-1); got[n-1] != want {
			t.Errorf("the last is %q, want %q", got[n-1], want)
		}
		changes := many(n)
		for i := range changes {
			changes[i].Value = nil
		}
		apply(t, s, changes[:n-1]...)
		wantAll(t, s, got[n-1])
	},
	"very large": func(t *testing.T, s index.Store) {
		value := make([]byte, index.MaxValue)
		var changes []index.KV
		for i := range 20 {
			changes = append(changes, index.KV{Key: fmt.Appendf(nil, "%02d", i), Value: value})
		}
		apply(t, s, changes...)
		for _, c := range changes {
			wantGet(t, s, string(c.Key), string(value))
		}
	},
	"slices stay the caller's": func(t *testing.T, s index.Store) {
		key, value := []byte("a"), []byte("1")
		apply(t, s, index.KV{Key: key, Value: value})
		key[0], value[0] = 'x', 'x'
		wantAll(t, s, "a=1")
	},
	"many goroutines": func(t *testing.T, s index.Store) {
		const writers, each = 8, 50
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					key := fmt.Sprintf("%d/%03d", w, i)
					if err := s.Apply(kv(key, key), kv(fmt.Sprint("last/", w), key)); err != nil {
						t.Errorf("Apply: %v", err)
					}
					wantGet(t, s, key, key)
				}
			})
			wg.Go(func() {
				for range each {
					got, err := collect(s.Scan(fmt.Appendf(nil, "%d/", w), nil))
					if err != nil {
						t.Errorf("Scan: %v", err)
					}
					for i, pair := range got {
						if want := fmt.Sprintf("%d/%03d=%d/%03d", w, i, w, i); pair != want {
							t.Errorf("pair %d is %q, want %q", i, pair, want)
						}
					}
				}
			})
		}
		wg.Wait()
		got, err := collect(s.Scan(nil, nil))
		if want := writers*each + writers; err != nil || len(got) != want {
			t.Errorf("%d pairs, %v, want %d", len(got), err, want)
		}
	},
}

// seenAtOnce has one goroutine move a pair between two keys while others look:
// at no moment are there two, or none.
func seenAtOnce(t *testing.T, s index.Store) {
	apply(t, s, kv("a", "1"))
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				if got, err := collect(s.Scan(nil, nil)); err != nil || len(got) != 1 {
					t.Errorf("Scan = %q, %v, want one pair", got, err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 200 {
		apply(t, s, del("a"), kv("b", "1"))
		apply(t, s, del("b"), kv("a", "1"))
	}
	close(done)
	wg.Wait()
}
