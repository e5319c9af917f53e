// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const (
	maxListing   = 1_000_000 // entries of one collection; a service may be endless
	listingBatch = 512       // entries that are compared and stored at once
	// A listing that goes on ends after this many times Options.Timeout; without
	// a new entry it ends after one.
	listingTimeouts = 20
)

// Refresh asks the registry for a collection's listing now and stores it. A
// refresh under way is joined. What is stored stays as it is when the registry
// does not answer.
//
// Errors: those of backends.Lister.
func (c *Catalog) Refresh(ctx context.Context, remote, collection string) error {
	r, err := c.live(remote)
	if err != nil {
		return err
	}
	if r.atHand() {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
		return nil
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	return c.join(ctx, s, r, collection)
}

// refreshLater refreshes behind the caller's back, unless that went wrong just now.
func (c *Catalog) refreshLater(r Remote, collection string) {
	s, err := c.store()
	if err != nil || r.Client == nil || c.failed.recent(string(headerKey(r.Name, collection)), c.now()) != nil {
		return
	}
	c.tasks.start(func(ctx context.Context) {
		if err := c.join(ctx, s, r, collection); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			c.opts.Log.Debug("listing not refreshed", "err", err)
		}
	})
}

// join makes a listing, or waits for the one being made. The work does not end
// with ctx: others may wait for it, and half a listing is of no use.
func (c *Catalog) join(ctx context.Context, s Store, r Remote, collection string) error {
	key := string(headerKey(r.Name, collection))
	done := c.listing.DoChan(key, func() (any, error) {
		return nil, c.tasks.run(func(ctx context.Context) error {
			err := c.relist(ctx, s, r, collection)
			c.health.note(r.Name, err, c.now())
			switch {
			case err == nil:
				c.failed.drop(key)
			case errors.Is(err, errors.ErrUnsupported):
				c.failed.add(key, err, c.now().Add(c.opts.ListTTL))
			case !errors.Is(err, context.Canceled):
				c.failed.add(key, err, c.now().Add(c.opts.NegTTL))
			}
			return err
		})
	})
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return listError(r.Name, collection, ctx.Err())
	}
}

func listError(remote, collection string, err error) error {
	return &backends.Error{Op: "list", Remote: remote, Subject: backends.EscapePath(collection), Err: err}
}

// A relisting compares what a registry lists with what is stored, in batches, so
// that memory does not grow with the images. Each batch is true by itself; the
// header that says so of the whole is written last.
type relisting struct {
	c          *Catalog
	store      Store
	remote     string
	collection string
	started    time.Time
	old        header
	first      bool                // there was no listing before
	seen       map[uint64]struct{} // hashes of the keys that the registry listed
	batch      []backends.Entry
	images     int
	lost       []string // child collections that are no more
	names      bool     // names came or went
	events     []Event  // of the images
}

func (c *Catalog) relist(ctx context.Context, s Store, r Remote, collection string) error {
	l := &relisting{c: c, store: s, remote: r.Name, collection: collection, started: c.now(), seen: make(map[uint64]struct{})}
	old, had := readHeader(s, r.Name, collection)
	l.old, l.first = old, !had
	truncated, err := l.fetch(ctx, r.Client)
	if err == nil {
		err = l.flush()
	}
	switch {
	case err == nil:
		err = l.finish(truncated)
	case errors.Is(err, fs.ErrNotExist):
		l.vanish()
	}
	l.emit()
	return err
}

// fetch reads the listing from the registry.
func (l *relisting) fetch(ctx context.Context, client *backends.Client) (truncated bool, err error) {
	timeout := l.c.opts.Timeout
	ctx, cancel := context.WithTimeout(ctx, listingTimeouts*timeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	idle := time.AfterFunc(timeout, func() { giveUp(context.DeadlineExceeded) })
	defer idle.Stop()
	n := 0
	for e, err := range client.List(ctx, l.collection) {
		if err != nil {
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				err = listError(l.remote, l.collection, fmt.Errorf("%w: no answer for %v", context.DeadlineExceeded, timeout))
			}
			if flushErr := l.flush(); flushErr != nil {
				err = errors.Join(err, flushErr)
			}
			return false, err
		}
		if n++; n > maxListing {
			l.c.opts.Log.Error("listing cut off: the registry lists more than we take",
				"remote", l.remote, "collection", l.collection, "taken", maxListing)
			return true, nil
		}
		idle.Reset(timeout)
		if l.batch = append(l.batch, e); len(l.batch) >= listingBatch {
			if err := l.flush(); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// flush stores the batch.
func (l *relisting) flush() error {
	defer l.c.lock(l.remote, l.collection)()
	var changes []KV
	for _, e := range l.batch {
		for _, kv := range l.compare(e) {
			if err := kv.Check(); err != nil {
				l.c.opts.Log.Warn("a name was left out of a listing", "remote", l.remote, "collection", l.collection, "err", err)
				continue
			}
			changes = append(changes, kv)
		}
	}
	clear(l.batch)
	l.batch = l.batch[:0]
	if len(changes) == 0 {
		return nil
	}
	return l.store.Apply(changes...)
}

// compare returns what must be stored because e was listed.
func (l *relisting) compare(e backends.Entry) []KV {
	if e.Collection != "" {
		key := childKey(l.remote, e.Collection)
		l.seen[maphash.Bytes(hashSeed, key)] = struct{}{}
		stored, _ := l.store.Get(key) // a value that is lost is written again
		return l.write(KV{key, stored}, entry{flags: listed}, backends.Ref{})
	}
	ref := e.Image.Ref
	ref.Version = ""
	key := imageKey(l.remote, ref)
	if l.c.ownSince(string(key), l.started) {
		l.seen[maphash.Bytes(hashSeed, key)] = struct{}{}
		return nil // published or deleted while the registry was listing
	}
	if _, twice := l.seen[maphash.Bytes(hashSeed, key)]; twice {
		return nil
	}
	l.seen[maphash.Bytes(hashSeed, key)] = struct{}{}
	l.images++
	stored, _ := l.store.Get(key) // a value that is lost is written again
	old, have := decodeEntry(stored, ref)
	now := listedEntry(old, clean(e.Image))
	if have && old.shown() && changed(old, now) {
		l.events = append(l.events, Event{Kind: ImageChanged, Remote: l.remote, Collection: l.collection, Ref: ref})
	}
	return append(l.c.history(l.remote, ref, old, now), l.write(KV{key, stored}, now, ref)...)
}

// listedEntry is what is known of an image once a listing told img of it.
func listedEntry(old entry, img backends.Image) entry {
	if img.Version == "" { // only the name
		old.flags = old.flags&full | listed
		return old
	}
	now := entry{flags: listed | full | fromList, image: merge(old, img)}
	if old.image.Version == img.Version {
		now.seen = old.seen
	}
	return now
}

// write returns the change that stores e in place of what is stored, if it is one.
func (l *relisting) write(stored KV, e entry, ref backends.Ref) []KV {
	value := encodeEntry(e, ref)
	if bytes.Equal(stored.Value, value) {
		return nil
	}
	if was, ok := decodeEntry(stored.Value, ref); !ok || !was.shown() {
		l.names = true
	}
	return []KV{{stored.Key, value}}
}

// finish drops what the registry did not list and writes the header.
func (l *relisting) finish(truncated bool) error {
	if !truncated {
		if err := l.sweep(); err != nil {
			return err
		}
	}
	now := l.c.now()
	h := header{fetched: now, took: now.Sub(l.started), count: l.images, truncated: truncated}
	return l.store.Apply(KV{headerKey(l.remote, l.collection), h.encode()})
}

// sweep removes the stored names that the listing did not have.
func (l *relisting) sweep() error {
	defer l.c.lock(l.remote, l.collection)()
	var changes []KV
	prefix := listPrefix(l.remote, l.collection)
	for kv, err := range l.store.Scan(prefix, nil) {
		if err != nil {
			return err
		}
		if _, ok := l.seen[maphash.Bytes(hashSeed, kv.Key)]; !ok && l.gone(kv, len(prefix)) {
			changes = append(changes, KV{Key: bytes.Clone(kv.Key)})
		}
	}
	for _, collection := range l.lost {
		changes = append(changes, vanished(l.store, l.remote, collection)...)
	}
	if len(changes) == 0 {
		return nil
	}
	if l.first {
		return l.store.Apply(changes...)
	}
	// Should the process die between two transactions of a large change, then
	// the listing must not count as fresh.
	l.old.fetched = time.Time{}
	stale := KV{headerKey(l.remote, l.collection), l.old.encode()}
	return l.store.Apply(append([]KV{stale}, changes...)...)
}

// gone reports whether an entry that was not listed must go. What was asked for
// by name while the registry was listing stays, and so does what was opened
// though no listing has it.
func (l *relisting) gone(kv KV, n int) bool {
	kind, name, tag, ok := cutEntry(kv.Key[n:])
	if !ok {
		return true
	}
	ref := backends.Ref{Collection: l.collection, Name: string(name), Tag: string(tag)}
	e, ok := decodeEntry(kv.Value, ref)
	switch {
	case !ok:
		return true
	case !e.is(listed) || !e.seen.Before(l.started) || l.c.ownSince(string(kv.Key), l.started):
		return false
	case kind == entryChild:
		l.lost = append(l.lost, joinCollection(l.collection, string(name)))
	default:
		l.events = append(l.events, Event{Kind: ImageGone, Remote: l.remote, Collection: l.collection, Ref: ref})
	}
	l.names = true
	return true
}

// vanished returns the changes that forget the listings of a collection that
// is no more, and of all below it. What was opened by its name stays.
func vanished(s Store, remote, collection string) []KV {
	var changes []KV
	drop := func(prefix []byte, keep func(value []byte) bool) {
		for kv, err := range s.Scan(prefix, nil) {
			if err != nil {
				return
			}
			if keep == nil || !keep(kv.Value) {
				changes = append(changes, KV{Key: bytes.Clone(kv.Key)})
			}
		}
	}
	wasOpened := func(value []byte) bool {
		e, ok := decodeEntry(value, backends.Ref{})
		return ok && e.is(opened)
	}
	tree := appendOpen(appendPart([]byte{kindEntry}, remote), collection+"/")
	headers := appendOpen(appendPart([]byte{kindHeader}, remote), collection+"/")
	drop(headerKey(remote, collection), nil)
	drop(headers, nil)
	drop(listPrefix(remote, collection), wasOpened)
	drop(tree, wasOpened)
	return changes
}

// vanish forgets a collection that the registry says is not there.
func (l *relisting) vanish() {
	defer l.c.lock(l.remote, l.collection)()
	changes := vanished(l.store, l.remote, l.collection)
	if l.collection != "" {
		if _, err := l.store.Get(childKey(l.remote, l.collection)); err == nil {
			changes = append(changes, KV{Key: childKey(l.remote, l.collection)})
			parent, _ := parentOf(l.collection)
			l.events = append(l.events, Event{Kind: ListingChanged, Remote: l.remote, Collection: parent})
		}
	}
	if len(changes) == 0 {
		return
	}
	l.names = true
	if err := l.store.Apply(changes...); err != nil {
		l.c.opts.Log.Warn("a listing could not be stored", "remote", l.remote, "collection", l.collection, "err", err)
	}
}

// emit tells what changed. Of a first listing nobody has seen anything before.
func (l *relisting) emit() {
	if l.names {
		l.c.watchers.emit(Event{Kind: ListingChanged, Remote: l.remote, Collection: l.collection})
	}
	l.c.watchers.emit(l.events...)
}
