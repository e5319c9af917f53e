// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
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

// drop removes those keys that must go, a batch at a time.
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
		if err == nil && l.gone(KV{key, value}, &lost) {
			l.changes = append(l.changes, KV{Key: key})
		}
	}
	if len(l.changes) == 0 {
		return nil
	}
	if !l.first {
		// Should the process die between two batches, then the listing must not
		// count as fresh.
		l.old.fetched = time.Time{}
		stale := KV{headerKey(l.remote, l.collection), l.old.encode()}
		l.changes = slices.Insert(l.changes, 0, stale)
	}
	for _, collection := range lost {
		if _, err := vanished(l.store, l.remote, collection); err != nil {
			return err
		}
	}
	return l.store.Apply(l.changes...)
}

// unseen yields, in batches, the stored keys from one on of which pick is true.
func (l *relisting) unseen(from []byte, pick func(key []byte) bool) iter.Seq2[[][]byte, error] {
	return func(yield func([][]byte, error) bool) {
		var some [][]byte
		for kv, err := range pages(l.store, l.prefix, from) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !pick(kv.Key) {
				continue
			}
			if some = append(some, bytes.Clone(kv.Key)); len(some) == listingBatch {
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
		for some := range slices.Chunk(keys, listingBatch) {
			if !yield(some, nil) {
				return
			}
		}
	}
}

// gone reports whether an entry that was not listed must go, and adds to lost
// the collection that it is. What was asked for by name while the registry was
// listing stays, and so does what was opened though no listing has it, and what the
// registry would not tell of: Lookup finds out whether that is still there.
func (l *relisting) gone(kv KV, lost *[]string) bool {
	kind, name, tag, ok := cutEntry(kv.Key[len(l.prefix):])
	if !ok {
		return true
	}
	ref := backends.Ref{Collection: l.collection, Name: string(name), Tag: string(tag)}
	e, ok := decodeEntry(kv.Value, ref)
	switch {
	case !ok:
		return true
	case e.is(emptied): // nobody lists it any more: there is nothing to hide
		return !l.c.own.since(kv.Key, l.started)
	case l.untold[""] || kind == entryImage && l.untold[string(name)]:
		return false
	case !e.is(listed) || l.seenSince(e) || l.c.own.since(kv.Key, l.started):
		return false
	case kind == entryChild:
		*lost = append(*lost, joinCollection(l.collection, string(name)))
	default:
		l.events = append(l.events, Event{Kind: ImageGone, Remote: l.remote, Collection: l.collection, Ref: ref})
	}
	l.names = true
	return true
}

// seenSince reports whether an image was asked for by name while the registry was
// listing. One that was seen in the future was so by a clock that was ahead.
func (l *relisting) seenSince(e entry) bool {
	return !e.seen.Before(l.started) && !e.seen.After(l.c.now())
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
		above, _ := parentOf(l.collection)
		l.c.watchers.emit(Event{Kind: ListingChanged, Remote: l.remote, Collection: above})
	}
}

func (l *relisting) vanishAll(parent *bool) (n int, err error) {
	defer l.c.lock(l.remote, l.collection)()
	l.c.trees.Lock()
	defer l.c.trees.Unlock()
	key := childKey(l.remote, l.collection)
	if l.c.own.since(key, l.started) {
		return 0, nil // something was published in it, or below it, since
	}
	if _, err := l.store.Get(key); err == nil {
		if err := l.store.Apply(KV{Key: key}); err != nil {
			return 0, err
		}
		*parent, n = true, 1
	}
	below, err := vanished(l.store, l.remote, l.collection)
	return n + below, err
}

// vanished forgets the listings of a collection that is no more, and of all
// below it, in batches, the headers first. What was opened by its name stays. It
// returns how many keys it dropped.
func vanished(s Store, remote, collection string) (n int, err error) {
	tree := appendOpen(appendPart([]byte{kindEntry}, remote), collection+"/")
	headers := appendOpen(appendPart([]byte{kindHeader}, remote), collection+"/")
	for _, prefix := range [][]byte{headerKey(remote, collection), headers, listPrefix(remote, collection), tree} {
		some, err := dropAll(s, prefix)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}

func dropAll(s Store, prefix []byte) (n int, err error) {
	var changes []KV
	drop := func() error {
		if len(changes) == 0 {
			return nil
		}
		n += len(changes)
		defer func() { changes = changes[:0] }()
		return s.Apply(changes...)
	}
	for kv, err := range pages(s, prefix, nil) {
		if err != nil {
			return n, err
		}
		if e, ok := decodeEntry(kv.Value, backends.Ref{}); prefix[0] == kindEntry && ok && e.is(opened) {
			continue
		}
		if changes = append(changes, KV{Key: bytes.Clone(kv.Key)}); len(changes) < listingBatch {
			continue
		}
		if err := drop(); err != nil {
			return n, err
		}
	}
	return n, drop()
}
