// SPDX-License-Identifier: Apache-2.0

// Package mem is an index.Store in memory: for programs that keep no state on
// the disk, and for tests. It forgets everything at Close.
//
// The pairs are a sorted slice, which each Apply replaces: a scan reads the one that was
// there when it began, without a lock. It is not made for a million pairs. Begin at [New].
package mem

import (
	"bytes"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/sregfs/sregfs/catalog/index"
)

var _ index.Store = (*Store)(nil)

// A Store keeps its pairs in memory. Make one with New.
type Store struct {
	mu     sync.Mutex // guards the fields below; never held during a scan
	pairs  []index.KV // sorted by key; replaced, never changed
	closed bool
}

// New returns an empty store.
func New() *Store { return &Store{} }

// Get implements index.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	pairs, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	i, ok := search(pairs, key)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(pairs[i].Value), nil
}

// Scan implements index.Store.
func (s *Store) Scan(prefix, from []byte) iter.Seq2[index.KV, error] {
	prefix, from = bytes.Clone(prefix), bytes.Clone(from)
	start := prefix
	if bytes.Compare(from, prefix) > 0 {
		start = from
	}
	return func(yield func(index.KV, error) bool) {
		pairs, err := s.snapshot()
		if err != nil {
			yield(index.KV{}, err)
			return
		}
		i, _ := search(pairs, start)
		for _, kv := range pairs[i:] {
			if !bytes.HasPrefix(kv.Key, prefix) || !yield(kv, nil) {
				return
			}
		}
	}
}

// Apply implements index.Store.
func (s *Store) Apply(changes ...index.KV) error {
	for _, c := range changes {
		if err := c.Check(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fs.ErrClosed
	}
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b index.KV) int { return bytes.Compare(a.Key, b.Key) })
	old, pairs := s.pairs, make([]index.KV, 0, len(s.pairs)+len(changes))
	for i, c := range changes {
		at, same := search(old, c.Key)
		pairs, old = append(pairs, old[:at]...), old[at:]
		if same {
			old = old[1:]
		}
		last := i+1 == len(changes) || !bytes.Equal(changes[i+1].Key, c.Key)
		if last && c.Value != nil {
			pairs = append(pairs, index.KV{Key: slices.Clip(bytes.Clone(c.Key)), Value: slices.Clip(bytes.Clone(c.Value))})
		}
	}
	s.pairs = append(pairs, old...)
	return nil
}

// Close implements index.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pairs, s.closed = nil, true
	return nil
}

func (s *Store) snapshot() ([]index.KV, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	return s.pairs, nil
}

// search returns where a key is among the pairs, or would be.
func search(pairs []index.KV, key []byte) (at int, found bool) {
	return slices.BinarySearchFunc(pairs, key, func(kv index.KV, key []byte) int { return bytes.Compare(kv.Key, key) })
}
