// SPDX-License-Identifier: Apache-2.0

// Package bounded has the map in which backends remember what is cheaper known than
// asked again. It knows nothing of what it keeps, nor for how long that is true.
package bounded

import (
	"maps"
	"slices"
	"sync"
)

// usual is how many entries a Map keeps whose Max is 0.
const usual = 10_000

// A Map forgets an entry, no matter which, when another one would be more than Max. The
// zero value is empty. Its methods may be called from many goroutines at once.
type Map[K comparable, V any] struct {
	Max int // default 10,000; set it before the first use

	mu  sync.Mutex // guards the field below
	all map[K]V
}

// Get returns the value of key, and whether there is one.
func (m *Map[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.all[key]
	return v, ok
}

// Put sets the value of key.
func (m *Map[K, V]) Put(key K, v V) {
	m.Update(key, func(V, bool) (V, bool) { return v, true })
}

// Delete forgets key.
func (m *Map[K, V]) Delete(key K) {
	m.Update(key, func(v V, _ bool) (V, bool) { return v, false })
}

// Update sets the value of key to what fn makes of it; without keep key is forgotten.
// Nobody else uses the map meanwhile, and fn must not.
func (m *Map[K, V]) Update(key K, fn func(old V, ok bool) (v V, keep bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.all[key]
	v, keep := fn(old, ok)
	if !keep {
		delete(m.all, key)
		return
	}
	limit := m.Max
	if limit == 0 {
		limit = usual
	}
	for other := range m.all {
		if ok || len(m.all) < limit {
			break
		}
		delete(m.all, other)
	}
	if m.all == nil {
		m.all = map[K]V{}
	}
	m.all[key] = v
}

// Keys returns all keys, in no order.
func (m *Map[K, V]) Keys() []K {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.all))
}
