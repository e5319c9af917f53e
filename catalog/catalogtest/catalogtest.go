// SPDX-License-Identifier: Apache-2.0

// Package catalogtest is the conformance suite of index.Store: each promise in
// its comments is a subtest here. An implementation joins with one line:
//
//	catalogtest.Run(t, func(t *testing.T) index.Store { … })
//
// Start at [Run]; the subtests are in point.go (one key at a time), scan.go,
// apply.go and lifetime.go.
package catalogtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/catalog/index"
)

// Run checks that open makes stores that keep the promises of index.Store.
// Each call of open must give another, empty store; Run closes them.
func Run(t *testing.T, open func(t *testing.T) index.Store) {
	for _, group := range []struct {
		name  string
		tests map[string]func(*testing.T, index.Store)
	}{
		{"Get", pointTests},
		{"Scan", scanTests},
		{"Apply", applyTests},
		{"Close", lifetimeTests},
	} {
		for name, test := range group.tests {
			t.Run(group.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := open(t)
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
				test(t, s)
			})
		}
	}
}

func kv(key, value string) index.KV {
	return index.KV{Key: []byte(key), Value: []byte(value)}
}

func del(key string) index.KV { return index.KV{Key: []byte(key)} }

// many returns n small pairs, in order.
func many(n int) []index.KV {
	all := make([]index.KV, n)
	for i := range all {
		all[i] = kv(fmt.Sprintf("n/%06d", i), fmt.Sprint(i))
	}
	return all
}

func apply(t *testing.T, s index.Store, changes ...index.KV) {
	t.Helper()
	if err := s.Apply(changes...); err != nil {
		t.Fatalf("Apply of %d changes: %v", len(changes), err)
	}
}

// wantAll checks the whole content of s: key=value, in order.
func wantAll(t *testing.T, s index.Store, want ...string) {
	t.Helper()
	wantSeq(t, s.Scan(nil, nil), want...)
}

func wantSeq(t *testing.T, seq iter.Seq2[index.KV, error], want ...string) {
	t.Helper()
	got, err := collect(seq)
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
}

func collect(seq iter.Seq2[index.KV, error]) (got []string, err error) {
	for kv, err := range seq {
		if err != nil {
			return got, err
		}
		got = append(got, string(kv.Key)+"="+string(kv.Value))
	}
	return got, nil
}

func wantGet(t *testing.T, s index.Store, key, want string) {
	t.Helper()
	got, err := s.Get([]byte(key))
	if err != nil || got == nil || !bytes.Equal(got, []byte(want)) {
		t.Errorf("Get(%q) = %q, %v, want %q", key, got, err, want)
	}
}

func wantMissing(t *testing.T, s index.Store, key string) {
	t.Helper()
	if got, err := s.Get([]byte(key)); !errors.Is(err, fs.ErrNotExist) || got != nil {
		t.Errorf("Get(%q) = %q, %v, want fs.ErrNotExist", key, got, err)
	}
}
