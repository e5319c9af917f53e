// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// A memo is the store of a catalogue with what is asked of it all the time kept
// in memory: the headers, of which a lookup needs one each, and the names that
// searches go through. All changes of listings must be made through it.
type memo struct {
	Store
	names nameIndex

	mu      sync.Mutex // guards the fields below
	headers map[string][]byte
	changed int // counts the calls of Apply with a header in them
}

func newMemo(s Store) *memo { return &memo{Store: s} }

// Get implements Store.
func (m *memo) Get(key []byte) ([]byte, error) {
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
		if m.headers == nil || len(m.headers) >= maxRemembered {
			m.headers = make(map[string][]byte)
		}
		m.headers[string(key)] = bytes.Clone(value)
	}
	return value, nil
}

// Apply implements Store.
func (m *memo) Apply(changes ...KV) error {
	err := m.Store.Apply(changes...)
	// Also after an error: some changes may have been made.
	m.forgetHeaders(changes)
	m.names.note(changes)
	return storeError(err)
}

// Scan implements Store.
func (m *memo) Scan(prefix, from []byte) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		for kv, err := range m.Store.Scan(prefix, from) {
			if !yield(kv, storeError(err)) {
				return
			}
		}
	}
}

// errStore is why something could not be kept here. That a file of ours is not
// there must not read as an answer of a registry.
var errStore = errors.New("index")

// storeError leaves of an error what the disk says, and what Store promises.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrClosed), errors.Is(err, fs.ErrInvalid):
		return fmt.Errorf("%w: %w", errStore, err)
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("%w: %v: %w", errStore, err, errno)
	}
	return fmt.Errorf("%w: %v", errStore, err)
}

func (m *memo) forgetHeaders(changes []KV) {
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
func (m *memo) Close() error {
	m.names.close()
	return m.Store.Close()
}
