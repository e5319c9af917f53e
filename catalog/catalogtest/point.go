// SPDX-License-Identifier: Apache-2.0

package catalogtest

import (
	"strings"
	"testing"

	"github.com/sregfs/sregfs/catalog/index"
)

var pointTests = map[string]func(*testing.T, index.Store){
	"missing": func(t *testing.T, s index.Store) {
		wantMissing(t, s, "nothing")
		apply(t, s, kv("ab", "1"))
		wantMissing(t, s, "a")
		wantMissing(t, s, "abc")
		wantMissing(t, s, "")
	},
	"stored": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"), kv("b", "2"))
		wantGet(t, s, "a", "1")
		wantGet(t, s, "b", "2")
	},
	"replaced": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "first"))
		apply(t, s, kv("a", "2nd"))
		wantGet(t, s, "a", "2nd")
	},
	"deleted": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "1"), kv("b", "2"))
		apply(t, s, del("a"))
		wantMissing(t, s, "a")
		wantGet(t, s, "b", "2")
	},
	"empty value": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", ""))
		wantGet(t, s, "a", "")
		wantAll(t, s, "a=")
	},
	"any key": func(t *testing.T, s index.Store) {
		for _, key := range []string{"", "\x00", "\xff\xff", "!badger!txn", "käse", "a\x00b", strings.Repeat("k", index.MaxKey)} {
			apply(t, s, kv(key, "value of "+key))
			wantGet(t, s, key, "value of "+key)
		}
	},
	"large value": func(t *testing.T, s index.Store) {
		value := strings.Repeat("0123456789", index.MaxValue/10)
		apply(t, s, kv("a", value), kv("b", value))
		wantGet(t, s, "a", value)
		wantGet(t, s, "b", value)
	},
	"owned by the caller": func(t *testing.T, s index.Store) {
		apply(t, s, kv("a", "one"))
		got, err := s.Get([]byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		copy(got, "two")
		wantGet(t, s, "a", "one")
	},
}
