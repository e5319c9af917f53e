// SPDX-License-Identifier: Apache-2.0

package http

import "sync"

// maxKnown bounds what is remembered of any one kind.
const maxKnown = 10_000

// A memory remembers what is cheaper known than asked again. It may forget at
// any time. The zero value is empty.
type memory[V any] struct {
	mu  sync.Mutex // guards the field below
	all map[string]V
}

func (m *memory[V]) get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.all[key]
	return v, ok
}

func (m *memory[V]) put(key string, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil || len(m.all) >= maxKnown {
		m.all = map[string]V{}
	}
	m.all[key] = v
}
