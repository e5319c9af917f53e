// SPDX-License-Identifier: Apache-2.0

// Package mem is a index.Store in memory: for programs that keep no state on
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

	"github.com/sregfs/sregfs/catalog/index"
)

var _ index.Store = (*Store)(nil)

// A Store keeps its pairs in memory. Make one with New.
type Store struct {
	seed maphash.Seed

	mu     sync.Mutex // guards the fields below; never held during a scan
	root   *node
	closed bool
}

// New returns an empty store.
func New() *Store { return &Store{seed: maphash.MakeSeed()} }

// Get implements index.Store.
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

// Scan implements index.Store.
func (s *Store) Scan(prefix, from []byte) iter.Seq2[index.KV, error] {
	prefix, from = bytes.Clone(prefix), bytes.Clone(from)
	start := prefix
	if bytes.Compare(from, prefix) > 0 {
		start = from
	}
	return func(yield func(index.KV, error) bool) {
		root, err := s.snapshot()
		if err != nil {
			yield(index.KV{}, err)
			return
		}
		root.ascend(start, func(n *node) bool {
			return bytes.HasPrefix(n.key, prefix) &&
				yield(index.KV{Key: slices.Clip(n.key), Value: slices.Clip(n.value)}, nil)
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

// Close implements index.Store.
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
