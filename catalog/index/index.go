// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// How many headers are kept in memory.
const maxHeaders = 10_000

// An Index is the store of a catalogue with what is needed most kept in memory: the
// headers, of which each lookup needs one, and the names that are searched. All changes of
// listings must be made through it.
type Index struct {
	Store
	names nameIndex

	mu      sync.Mutex // guards the fields below
	headers map[string][]byte
	changed int // counts the calls of Apply with a header in them
	// unsaved is what ApplyOwn could not store: values, nil for deleted keys.
	unsaved map[string][]byte
}

// New returns the index that is kept in s, which it closes.
func New(s Store) *Index { return &Index{Store: s} }

// Get implements Store.
func (m *Index) Get(key []byte) ([]byte, error) {
	m.mu.Lock()
	own, ok := m.unsaved[string(key)]
	m.mu.Unlock()
	switch {
	case ok && own == nil:
		return nil, fs.ErrNotExist
	case ok:
		return bytes.Clone(own), nil
	}
	if len(key) == 0 || key[0] != kindHeader {
		return m.Store.Get(key)
	}
	m.mu.Lock()
	value, ok := m.headers[string(key)]
	before := m.changed
	m.mu.Unlock()
	if ok {
		return bytes.Clone(value), nil
	}
	value, err := m.Store.Get(key)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == before { // else the value may be the one before the change
		if m.headers == nil || len(m.headers) >= maxHeaders {
			m.headers = make(map[string][]byte)
		}
		m.headers[string(key)] = bytes.Clone(value)
	}
	return value, nil
}

// Apply implements Store.
func (m *Index) Apply(changes ...KV) error {
	changes = withLabels(changes)
	err := m.Store.Apply(changes...)
	// Also after an error: some changes may have been made.
	m.forgetHeaders(changes)
	m.names.note(changes)
	if err == nil {
		m.saved(changes)
	}
	return storeError(err)
}

// ApplyOwn is Apply for what this process has done itself. What cannot be
// stored is kept in memory until it can: a user expects to see what he did, even if the
// directory of the index was deleted or its disk is full.
func (m *Index) ApplyOwn(changes ...KV) error {
	err := m.Apply(changes...)
	if err == nil || errors.Is(err, fs.ErrClosed) {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unsaved == nil {
		m.unsaved = make(map[string][]byte)
	}
	for _, kv := range changes {
		m.unsaved[string(kv.Key)] = bytes.Clone(kv.Value)
	}
	return err
}

// saved forgets what is stored now, and tries to store the rest.
func (m *Index) saved(changes []KV) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.unsaved) == 0 {
		return
	}
	for _, kv := range changes {
		delete(m.unsaved, string(kv.Key))
	}
	rest := make([]KV, 0, len(m.unsaved))
	for key, value := range m.unsaved {
		rest = append(rest, KV{[]byte(key), value})
	}
	if m.Store.Apply(rest...) == nil {
		m.unsaved = nil
	}
}

// unsavedBelow returns what could not be stored of the pairs that Scan would yield,
// in the order of the keys.
func (m *Index) unsavedBelow(prefix, from []byte) []KV {
	m.mu.Lock()
	defer m.mu.Unlock()
	var own []KV
	for key, value := range m.unsaved {
		if strings.HasPrefix(key, string(prefix)) && key >= string(from) {
			own = append(own, KV{[]byte(key), value})
		}
	}
	slices.SortFunc(own, func(a, b KV) int { return bytes.Compare(a.Key, b.Key) })
	return own
}

// Scan implements Store.
func (m *Index) Scan(prefix, from []byte) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		own := m.unsavedBelow(prefix, from)
		// before yields the unsaved pairs before a key, or all.
		before := func(key []byte) bool {
			for len(own) > 0 && (key == nil || bytes.Compare(own[0].Key, key) < 0) {
				kv := own[0]
				if own = own[1:]; kv.Value != nil && !yield(kv, nil) {
					return false
				}
			}
			return true
		}
		for kv, err := range m.Store.Scan(prefix, from) {
			if err != nil {
				if before(nil) {
					yield(KV{}, storeError(err))
				}
				return
			}
			if !before(kv.Key) {
				return
			}
			if len(own) > 0 && bytes.Equal(own[0].Key, kv.Key) {
				continue // the unsaved one replaces it
			}
			if !yield(kv, nil) {
				return
			}
		}
		before(nil)
	}
}

// ErrStore is why something could not be kept here. That a file of ours is not
// there must not read as an answer of a registry.
var ErrStore = errors.New("index")

// storeError leaves of an error what the disk says, and what Store promises.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrClosed), errors.Is(err, fs.ErrInvalid):
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("%w: %v: %w", ErrStore, err, errno)
	}
	return fmt.Errorf("%w: %v", ErrStore, err)
}

func (m *Index) forgetHeaders(changes []KV) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, kv := range changes {
		if len(kv.Key) > 0 && kv.Key[0] == kindHeader {
			m.changed++
			delete(m.headers, string(kv.Key))
		}
	}
}

// Close implements Store.
func (m *Index) Close() error {
	m.names.close()
	return m.Store.Close()
}
