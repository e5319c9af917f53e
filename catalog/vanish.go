// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// sweep removes the stored names that the listing did not have.
func (l *relisting) sweep() error {
	if l.seen != nil {
		return l.drop(l.unseen(nil, func(key []byte) bool {
			_, ok := l.seen[maphash.Bytes(hashSeed, key)]
			return !ok
		}))
	}
	if err := l.drop(batches(l.missed)); err != nil {
		return err
	}
	return l.drop(l.unseen(l.after(), func([]byte) bool { return true }))
}

// drop removes those of the keys that may be removed, a batch at a time.
func (l *relisting) drop(keys iter.Seq2[[][]byte, error]) error {
	for some, err := range keys {
		if err != nil {
			return err
		}
		if err := l.told(l.dropSome(some)); err != nil {
			return err
		}
	}
	return nil
}

func (l *relisting) dropSome(keys [][]byte) error {
	defer l.c.lock(l.remote, l.collection)()
	l.c.trees.Lock()
	defer l.c.trees.Unlock()
	var lost []string
	for _, key := range keys {
		value, err := l.store.Get(key)
		if err == nil && l.gone(index.KV{Key: key, Value: value}, &lost) {
			l.changes = append(l.changes, index.KV{Key: key})
		}
	}
	if len(l.changes) == 0 {
		return nil
	}
	if !l.first {
		// If the process dies between two batches, the listing must not count as fresh.
		l.old.Fetched = time.Time{}
		stale := index.KV{Key: index.HeaderKey(l.remote, l.collection), Value: l.old.Encode()}
		l.changes = slices.Insert(l.changes, 0, stale)
	}
	for _, collection := range lost {
		if _, err := l.store.DropTree(l.remote, collection); err != nil {
			return err
		}
	}
	return l.store.Apply(l.changes...)
}

// unseen yields, in batches, the stored keys not before from for which pick returns true.
func (l *relisting) unseen(from []byte, pick func(key []byte) bool) iter.Seq2[[][]byte, error] {
	return func(yield func([][]byte, error) bool) {
		var some [][]byte
		for kv, err := range index.Pages(l.store, l.prefix, from) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !pick(kv.Key) {
				continue
			}
			if some = append(some, bytes.Clone(kv.Key)); len(some) == index.Batch {
				if !yield(some, nil) {
					return
				}
				some = nil
			}
		}
		yield(some, nil)
	}
}

func batches(keys [][]byte) iter.Seq2[[][]byte, error] {
	return func(yield func([][]byte, error) bool) {
		for some := range slices.Chunk(keys, index.Batch) {
			if !yield(some, nil) {
				return
			}
		}
	}
}

// gone reports whether an entry that was not listed is to be removed; if it is a
// collection, it is added to lost. Kept are images that were asked for by name during the
// listing, that were opened though no listing has them, or that the registry did not
// list: Lookup finds out whether those are still there.
func (l *relisting) gone(kv index.KV, lost *[]string) bool {
	kind, name, tag, ok := index.CutEntry(kv.Key[len(l.prefix):])
	if !ok {
		return true
	}
	ref := backends.Ref{Collection: l.collection, Name: string(name), Tag: string(tag)}
	e, ok := index.Decode(kv.Value, ref)
	switch {
	case !ok:
		return true
	case e.Is(index.Emptied): // it is not listed any more, so that nothing has to be hidden
		return !l.c.writes.since(kv.Key, l.started)
	case l.untold[""] || kind == index.KindImage && l.untold[string(name)]:
		return false
	case !e.Is(index.InListing) || l.seenSince(e) || l.c.writes.since(kv.Key, l.started):
		return false
	case kind == index.KindCollection:
		*lost = append(*lost, index.Join(l.collection, string(name)))
	default:
		l.events = append(l.events, Event{Kind: ImageGone, Remote: l.remote, Collection: l.collection, Ref: ref})
	}
	l.names = true
	return true
}

// seenSince reports whether an image was asked for by name while the registry was
// listing. A time in the future comes from a clock that was wrong.
func (l *relisting) seenSince(e index.Entry) bool {
	return !e.Seen.Before(l.started) && !e.Seen.After(l.c.Now())
}

// vanish forgets a collection that the registry says is not there.
func (l *relisting) vanish() {
	parent := false
	n, err := l.vanishAll(&parent)
	if err != nil {
		l.c.opts.Log.Warn("a listing could not be stored", "remote", l.remote, "collection", l.collection, "err", err)
	}
	l.names = l.names || n > 0
	if parent {
		above, _ := index.Parent(l.collection)
		l.c.watchers.emit(Event{Kind: ListingChanged, Remote: l.remote, Collection: above})
	}
}

func (l *relisting) vanishAll(parent *bool) (n int, err error) {
	defer l.c.lock(l.remote, l.collection)()
	l.c.trees.Lock()
	defer l.c.trees.Unlock()
	key := index.ChildKey(l.remote, l.collection)
	if l.c.writes.since(key, l.started) {
		return 0, nil // something was published in it or below it meanwhile
	}
	if _, err := l.store.Get(key); err == nil {
		if err := l.store.Apply(index.KV{Key: key}); err != nil {
			return 0, err
		}
		*parent, n = true, 1
	}
	below, err := l.store.DropTree(l.remote, l.collection)
	return n + below, err
}

// Many registries go on listing a collection whose last image was deleted: a
// repository without tags, an empty folder. To a user who removed it, it would come back.
// So it is stored as emptied, and hidden until something is in it: each time its
// parent's listing has it, it is listed itself.

// refilled makes an emptied collection in which something was found, and those above it,
// appear again. It returns the events. trees is held.
func (l *relisting) refilled() (events []Event, err error) {
	if l.collection == "" || !l.store.HasEntries(l.remote, l.collection) {
		return nil, nil
	}
	var changes []index.KV
	for at := l.collection; at != ""; at, _ = index.Parent(at) {
		if !l.store.Emptied(l.remote, at) {
			continue
		}
		changes = append(changes, index.KV{Key: index.ChildKey(l.remote, at), Value: index.Encode(index.Entry{Flags: index.InListing}, backends.Ref{})})
		parent, _ := index.Parent(at)
		events = append(events, Event{Kind: ListingChanged, Remote: l.remote, Collection: parent})
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return events, l.store.Apply(changes...)
}

// finish drops what the registry did not list and writes the header.
func (l *relisting) finish(truncated bool) error {
	if !truncated {
		if err := l.sweep(); err != nil {
			return err
		}
	}
	h := index.Header{Fetched: l.started, Took: l.c.Now().Sub(l.started), Count: l.images, Truncated: truncated}
	if l.c.writes.doubted(l.remote, l.collection, l.started) {
		h.Fetched = time.Time{}
	}
	l.c.trees.Lock()
	defer l.c.trees.Unlock()
	if l.pruned() {
		return nil
	}
	events, err := l.refilled()
	if err != nil {
		return err
	}
	l.events = append(l.events, events...)
	return l.told(l.store.Apply(index.KV{Key: index.HeaderKey(l.remote, l.collection), Value: h.Encode()}))
}

// pruned reports whether the collection was removed with its last image meanwhile.
func (l *relisting) pruned() bool {
	if l.collection == "" {
		return false
	}
	return !l.store.Known(l.remote, l.collection) && l.c.writes.since(index.ChildKey(l.remote, l.collection), l.started)
}

// end emits and logs what concerns the whole listing.
func (l *relisting) end() {
	if l.bad > 0 {
		l.c.opts.Log.Warn("names were left out of a listing", "remote", l.remote, "collection", l.collection, "count", l.bad, "first", l.badErr)
	}
	if l.names && !l.first {
		l.c.watchers.emit(Event{Kind: ListingChanged, Remote: l.remote, Collection: l.collection})
	}
}
