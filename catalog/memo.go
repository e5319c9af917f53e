// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"sync"
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
	return err
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
