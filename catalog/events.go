// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// An Event says what a tree built on the catalogue must look at again.
type Event struct {
	Kind       EventKind
	Remote     string
	Collection string       // for ListingChanged: where names came or went
	Ref        backends.Ref // for ImageChanged, ImageGone
	Key        cache.Key    // for BlobChanged
}

// EventKind is what changed.
type EventKind int

// The kinds of events.
const (
	ListingChanged EventKind = iota // names of a collection came or went
	ImageChanged                    // a name means another version, or more is known of it
	ImageGone                       // a name is no more
	BlobChanged                     // a blob became partial, whole, or was dropped
)

// Watch calls fn for each event until stop is called. fn must not block, nor
// call the catalogue. A call under way when stop is called may still end.
func (c *Catalog) Watch(fn func(Event)) (stop func()) { return c.watchers.add(fn) }

// watchers are those who want to hear of events. The zero value is ready.
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

// follow listens to a service that tells what changed.
func (c *Catalog) follow(ctx context.Context, r Remote) {
	for change, err := range r.Client.Watch(ctx) {
		if err != nil {
			c.opts.Log.Warn("watch ended", "remote", r.Name, "err", err)
			return
		}
		c.noteChange(r, change)
	}
}

// noteChange asks again for listings that somebody has looked at; the others
// are asked for anyway when they are first wanted.
func (c *Catalog) noteChange(r Remote, change backends.Change) {
	if r.Local() {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: change.Collection})
		return
	}
	s, err := c.store()
	if err != nil {
		return
	}
	c.own.add(c.Now(), index.HeaderKey(r.Name, change.Collection))
	if _, ok := s.Header(r.Name, change.Collection); ok {
		c.refreshLater(r, change.Collection)
	}
	if !change.Below {
		return
	}
	c.own.add(c.Now(), doubtKey(r.Name, change.Collection))
	c.doubtBelow(s, r, change.Collection)
}

// doubtKey stands for all listings below a collection.
func doubtKey(remote, collection string) []byte {
	return append(index.HeaderKey(remote, collection), "below"...)
}

// doubted reports whether the service told of a change in a listing since it was
// asked for it.
func (c *Catalog) doubted(remote, collection string, asked time.Time) bool {
	if c.own.since(index.HeaderKey(remote, collection), asked) {
		return true
	}
	for collection != "" {
		if collection, _ = index.Parent(collection); c.own.since(doubtKey(remote, collection), asked) {
			return true
		}
	}
	return false
}

// doubtBelow makes all listings below a collection stale. There may be many:
// they are asked for when somebody looks at them again.
func (c *Catalog) doubtBelow(s *index.Index, r Remote, parent string) {
	var changes []index.KV
	var events []Event
	for collection, h := range s.Headers(r.Name) {
		if index.Below(collection, parent) {
			h.Fetched = time.Time{}
			changes = append(changes, index.KV{Key: index.HeaderKey(r.Name, collection), Value: h.Encode()})
			events = append(events, Event{Kind: ListingChanged, Remote: r.Name, Collection: collection})
		}
	}
	if err := s.Apply(changes...); err != nil {
		c.opts.Log.Warn("a change could not be noted", "remote", r.Name, "collection", parent, "err", err)
	}
	c.watchers.emit(events...)
}
