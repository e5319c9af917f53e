// SPDX-License-Identifier: Apache-2.0

package catalogtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/catalog/index"
)

var scanTests = map[string]func(*testing.T, index.Store){
	"empty": func(t *testing.T, s index.Store) { wantAll(t, s) },
	"order": func(t *testing.T, s index.Store) {
		apply(t, s, kv("b", "3"), kv("\xff", "5"), kv("a\x00b", "2"), kv("b\x00", "4"), kv("a", "1"), kv("", "0"))
		wantAll(t, s, "=0", "a=1", "a\x00b=2", "b=3", "b\x00=4", "\xff=5")
	},
	"prefix": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"), kv("ab", "2"), kv("ab\xff", "3"), kv("abc", "4"), kv("ac", "5"), kv("\xff\xff", "6"))
		wantSeq(t, s.Scan([]byte("ab"), nil), "ab=2", "abc=4", "ab\xff=3")
		wantSeq(t, s.Scan([]byte("\xff"), nil), "\xff\xff=6")
		wantSeq(t, s.Scan([]byte("b"), nil))
	},
	"from": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a1", "1"), kv("a2", "2"), kv("a3", "3"), kv("b1", "4"))
		wantSeq(t, s.Scan([]byte("a"), []byte("a2")), "a2=2", "a3=3")
		wantSeq(t, s.Scan([]byte("a"), []byte("a2\x00")), "a3=3")
		wantSeq(t, s.Scan([]byte("b"), []byte("a")), "b1=4")
		wantSeq(t, s.Scan([]byte("a"), []byte("b")))
		wantSeq(t, s.Scan(nil, []byte("a3")), "a3=3", "b1=4")
	},
	"deleted": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"), kv("b", "2"), kv("c", "3"))
		apply(t, s, del("b"))
		wantAll(t, s, "a=1", "c=3")
	},
	"model": scanModel,
	"one moment": func(t *testing.T, s index.Store) {
		apply(t, s, many(1000)...)
		n := 0
		for pair, err := range s.Scan(nil, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprint(n); string(pair.Value) != want {
				t.Fatalf("%s has %q, want %q", pair.Key, pair.Value, want)
			}
			// What comes later in the walk is changed, removed and added to.
			if n == 10 {
				apply(t, s, kv("n/000500", "new"), del("n/000501"), kv("n/000501a", "new"))
			}
			n++
		}
		if n != 1000 {
			t.Errorf("%d pairs, want 1000", n)
		}
		wantGet(t, s, "n/000500", "new")
	},
	"moment of the range": func(t *testing.T, s index.Store) {
		seq := s.Scan(nil, nil)
		wantSeq(t, seq)
		apply(t, s, kv("a", "1"))
		wantSeq(t, seq, "a=1")
		apply(t, s, kv("b", "2"))
		wantSeq(t, seq, "a=1", "b=2")
	},
	"breaking out": func(t *testing.T, s index.Store) {
		apply(t, s, many(100)...)
		// Each walk left open would keep Close waiting.
		for range 100 {
			for _, err := range s.Scan(nil, nil) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		apply(t, s, kv("z", "1"))
		wantGet(t, s, "z", "1")
	},
	"panic in the loop": func(t *testing.T, s index.Store) {
		apply(t, s, many(10)...)
		func() {
			defer func() {
				if got := recover(); got != "mine" {
					t.Errorf("recovered %v, want the loop's own panic", got)
				}
			}()
			for range s.Scan(nil, nil) {
				panic("mine")
			}
		}()
		wantGet(t, s, "n/000001", "1")
	},
	"calls in the loop": func(t *testing.T, s index.Store) {
		apply(t, s, many(10)...)
		for pair, err := range s.Scan([]byte("n/"), nil) {
			if err != nil {
				t.Fatal(err)
			}
			wantGet(t, s, string(pair.Key), string(pair.Value))
			wantSeq(t, s.Scan(pair.Key, nil), string(pair.Key)+"="+string(pair.Value))
			apply(t, s, index.KV{Key: pair.Key})
		}
		wantAll(t, s)
	},
	"arguments stay the caller's": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a1", "1"), kv("a2", "2"), kv("b", "3"))
		prefix, from := []byte("a"), []byte("a2")
		seq := s.Scan(prefix, from)
		prefix[0], from[1] = 'x', 'x'
		wantSeq(t, seq, "a2=2")
	},
}

// scanModel compares a store with a map after each of many random changes.
func scanModel(t *testing.T, s index.Store) {
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	key := func() string {
		return strings.Repeat("k", rnd.IntN(3)) + string(rune('a'+rnd.IntN(8)))
	}
	for step := range 300 {
		var changes []index.KV
		for range rnd.IntN(6) {
			k := key()
			if rnd.IntN(3) == 0 {
				changes = append(changes, del(k))
				delete(model, k)
				continue
			}
			v := fmt.Sprint(step, rnd.IntN(100))
			changes = append(changes, kv(k, v))
			model[k] = v
		}
		apply(t, s, changes...)
		prefix, from := strings.Repeat("k", rnd.IntN(3)), key()
		var want []string
		for k, v := range model {
			if strings.HasPrefix(k, prefix) && k >= from {
				want = append(want, k+"="+v)
			}
		}
		slices.SortFunc(want, func(a, b string) int {
			ka, _, _ := strings.Cut(a, "=")
			kb, _, _ := strings.Cut(b, "=")
			return strings.Compare(ka, kb)
		})
		wantSeq(t, s.Scan([]byte(prefix), []byte(from)), want...)
	}
}
