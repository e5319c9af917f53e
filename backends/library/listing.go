// SPDX-License-Identifier: Apache-2.0

package library

import (
	"sync"
	"time"
)

const (
	// listingLife is how long what was listed is good for, and maxKept how many ids
	// of containers are kept of it.
	listingLife = 30 * time.Second
	maxKept     = 250_000
)

// A listing is what was listed a moment ago: which collections an entity has, and
// which containers those. The zero value is empty.
type listing struct {
	mu          sync.Mutex // guards the fields below
	entities    map[string]entity
	collections map[string]collection // by entity/collection
	kept        int
	until       time.Time
	forgot      int // how many times, so that what was read before is not kept after
}

func (l *listing) generation() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.forgot
}

// expire empties l when it is old. Call with mu held.
func (l *listing) expire() {
	if now := time.Now(); now.After(l.until) {
		l.entities, l.collections, l.kept = map[string]entity{}, map[string]collection{}, 0
		l.until = now.Add(listingLife)
	}
}

func (l *listing) putEntity(e entity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if l.kept += 1 + len(e.Collections); l.kept <= maxKept {
		l.entities[e.Name] = e
	}
}

func (l *listing) putCollection(generation int, path string, col collection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if generation != l.forgot {
		return
	}
	if l.kept += 1 + len(col.Containers); l.kept <= maxKept {
		l.collections[path] = col
	}
}

func (l *listing) entity(name string) (entity, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	e, ok := l.entities[name]
	return e, ok
}

func (l *listing) collection(path string) (collection, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	col, ok := l.collections[path]
	return col, ok
}

// forget is for when something changed.
func (l *listing) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
	l.forgot++
}
