// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// watchRemote listens to a service that reports changes, until ctx ends or the catalogue
// is closed.
func (c *listings) watchRemote(ctx context.Context, r Remote) {
	if r.Client == nil || !r.Client.Caps().Has(backends.CanWatch) {
		return
	}
	c.tasks.start(func(own context.Context) {
		own, cancel := context.WithCancel(own)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		c.follow(own, r)
	})
}

// follow notes the changes that a service reports.
func (c *listings) follow(ctx context.Context, r Remote) {
	for change, err := range r.Client.Watch(ctx) {
		if err != nil {
			c.opts.Log.Warn("watch ended", "remote", r.Name, "err", err)
			return
		}
		c.noteChange(r, change)
	}
}

// noteChange refreshes listings that are stored. The others are made when they are first
// needed.
func (c *listings) noteChange(r Remote, change backends.Change) {
	if r.Local() {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: change.Collection})
		return
	}
	s, err := c.store()
	if err != nil {
		return
	}
	c.writes.add(c.Now(), index.HeaderKey(r.Name, change.Collection))
	if _, ok := s.Header(r.Name, change.Collection); ok {
		c.refreshLater(r, change.Collection)
	}
	if !change.Below {
		return
	}
	c.writes.add(c.Now(), doubtKey(r.Name, change.Collection))
	c.doubtBelow(s, r, change.Collection)
}

// doubtBelow makes all listings below a collection stale. There may be many,
// so that each is refreshed when it is next needed.
func (c *listings) doubtBelow(s *index.Index, r Remote, parent string) {
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
