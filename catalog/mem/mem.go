// SPDX-License-Identifier: Apache-2.0

// Package mem is an index.Store in memory: for programs that keep no state on
// the disk, and for tests. It forgets everything at Close.
//
// A scan reads a clone of the tree, which shares what is not changed meanwhile: it
// sees the pairs as they were when it began, without a lock. Start at [New].
package mem

import (
	"bytes"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/google/btree"

	"github.com/sregfs/sregfs/catalog/index"
)

var _ index.Store = (*Store)(nil)

// A Store keeps its pairs in memory. Make one with New.
type Store struct {
	mu   sync.Mutex              // guards the field below; never held during a scan
	tree *btree.BTreeG[index.KV] // nil once the store is closed
}

// degree is how many children a node of the tree has at least.
const degree = 16

// New returns an empty store.
func New() *Store {
	return &Store{tree: btree.NewG(degree, func(a, b index.KV) bool { return bytes.Compare(a.Key, b.Key) < 0 })}
}

// Get implements index.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil {
		return nil, fs.ErrClosed
	}
	kv, ok := s.tree.Get(index.KV{Key: key})
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(kv.Value), nil
}

// Scan implements index.Store.
func (s *Store) Scan(prefix, from []byte) iter.Seq2[index.KV, error] {
	prefix, from = bytes.Clone(prefix), bytes.Clone(from)
	start := prefix
	if bytes.Compare(from, prefix) > 0 {
		start = from
	}
	return func(yield func(index.KV, error) bool) {
		tree := s.snapshot()
		if tree == nil {
			yield(index.KV{}, fs.ErrClosed)
			return
		}
		tree.AscendGreaterOrEqual(index.KV{Key: start}, func(kv index.KV) bool {
			return bytes.HasPrefix(kv.Key, prefix) && yield(kv, nil)
		})
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
	if s.tree == nil {
		return fs.ErrClosed
	}
	for _, c := range changes {
		if c.Value == nil {
			s.tree.Delete(c)
		} else {
			s.tree.ReplaceOrInsert(index.KV{Key: slices.Clip(bytes.Clone(c.Key)), Value: slices.Clip(bytes.Clone(c.Value))})
		}
	}
	return nil
}

// Close implements index.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree = nil
	return nil
}

// snapshot returns the tree as it is, nil once the store is closed.
func (s *Store) snapshot() *btree.BTreeG[index.KV] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil {
		return nil
	}
	return s.tree.Clone()
}
