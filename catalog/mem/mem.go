// SPDX-License-Identifier: Apache-2.0

// Package mem is a catalog.Store in memory: for programs that keep no state on
// the disk, and for tests. It forgets everything at Close.
//
// The pairs are in a treap that is never changed in place: each change copies
// the path to its node, so that a scan reads the tree as it was when the scan
// began, without a lock. Start at [New]; the tree is in treap.go.
package mem

import (
	"bytes"
	"hash/maphash"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/sregfs/sregfs/catalog"
)

var _ catalog.Store = (*Store)(nil)

// A Store keeps its pairs in memory. Make one with New.
type Store struct {
	seed maphash.Seed

	mu     sync.Mutex // guards the fields below; never held during a scan
	root   *node
	closed bool
}

// New returns an empty store.
func New() *Store { return &Store{seed: maphash.MakeSeed()} }

// Get implements catalog.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	root, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	n := root.find(key)
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(n.value), nil
}

// Scan implements catalog.Store.
func (s *Store) Scan(prefix, from []byte) iter.Seq2[catalog.KV, error] {
	prefix, from = bytes.Clone(prefix), bytes.Clone(from)
	start := prefix
	if bytes.Compare(from, prefix) > 0 {
		start = from
	}
	return func(yield func(catalog.KV, error) bool) {
		root, err := s.snapshot()
		if err != nil {
			yield(catalog.KV{}, err)
			return
		}
		root.ascend(start, func(n *node) bool {
			return bytes.HasPrefix(n.key, prefix) &&
				yield(catalog.KV{Key: slices.Clip(n.key), Value: slices.Clip(n.value)}, nil)
		})
	}
}

// Apply implements catalog.Store.
func (s *Store) Apply(changes ...catalog.KV) error {
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
	for _, c := range changes {
		if c.Value == nil {
			s.root = s.root.without(c.Key)
			continue
		}
		s.root = s.root.with(&node{
			key:   bytes.Clone(c.Key),
			value: bytes.Clone(c.Value),
			prio:  maphash.Bytes(s.seed, c.Key),
		})
	}
	return nil
}

// Close implements catalog.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root, s.closed = nil, true
	return nil
}

func (s *Store) snapshot() (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	return s.root, nil
}
