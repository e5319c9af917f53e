// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"maps"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// An Event says what a tree built on the catalogue must look at again.
type Event struct {
	Kind       EventKind
	Remote     string
	Collection string       // for ListingChanged: whose names changed
	Ref        backends.Ref // for ImageChanged, ImageGone
	Key        cache.Key    // for BlobChanged
}

// EventKind is what changed.
type EventKind int

// The kinds of events.
const (
	ListingChanged EventKind = iota // names in a collection were added or removed
	ImageChanged                    // a name means another version, or more is known of it
	ImageGone                       // a name was removed
	BlobChanged                     // a blob became partial, whole, or was dropped
	RemoteGone                      // a remote was removed
)

// watchers are the functions that are called with events. The zero value is ready.
type watchers struct {
	mu   sync.Mutex // guards the fields below
	next int
	fns  map[int]func(Event) // replaced, never changed
}

func (w *watchers) add(fn func(Event)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	w.change(func(fns map[int]func(Event)) { fns[id] = fn })
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.change(func(fns map[int]func(Event)) { delete(fns, id) })
	}
}

func (w *watchers) change(f func(map[int]func(Event))) {
	fns := make(map[int]func(Event), len(w.fns)+1)
	maps.Copy(fns, w.fns)
	f(fns)
	w.fns = fns
}

func (w *watchers) emit(events ...Event) {
	w.mu.Lock()
	fns := w.fns
	w.mu.Unlock()
	for _, e := range events {
		for _, fn := range fns {
			fn(e)
		}
	}
}
