// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"hash/maphash"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// A relisting compares what a registry lists with what is stored, in batches, so
// that memory does not grow with the images. Each batch is true by itself; the
// header that says so of the whole is written last.
//
// Most registries list in the order of our keys: then the two are merged as they
// go by. Once one does not, what it listed is remembered, and looked up.
type relisting struct {
	c          *Catalog
	store      *index.Index
	remote     string
	collection string
	prefix     []byte    // of the keys
	started    time.Time // when the registry was asked: what it tells is true as of then
	old        index.Header
	first      bool            // nobody was shown anything before, not even that there is nothing: whatever comes is no change
	untold     map[string]bool // names of images whose tags the registry does not tell; "": any name

	batch  []listedName
	last   []byte              // while in order: the last key that was compared
	missed [][]byte            // while in order: stored keys before last that were not listed
	seen   map[uint64]struct{} // once out of order: hashes of the listed keys; else nil

	emptied []string   // collections that are listed still
	changes []index.KV // of this batch
	events  []Event    // of its images
	images  int
	names   bool  // names came or went
	bad     int   // names that cannot be stored
	badErr  error // why, the first of them
}

// A listedName is an entry of the registry's listing.
type listedName struct {
	key   []byte
	entry backends.Entry
}

func newRelisting(c *Catalog, s *index.Index, remote, collection string, started time.Time) *relisting {
	old, had := s.Header(remote, collection)
	return &relisting{
		c: c, store: s, remote: remote, collection: collection,
		prefix: index.ListPrefix(remote, collection), started: started, old: old,
		first: !had && !s.HasEntries(remote, collection) && !c.records.IsMade(remote, collection),
	}
}

// add takes an entry into the batch, and returns how many are in it.
func (l *relisting) add(e backends.Entry) int {
	if e.Untold != nil {
		if l.untold == nil {
			l.untold = make(map[string]bool)
		}
		l.untold[e.Image.Ref.Name] = true
		return len(l.batch)
	}
	e.Image.Ref.Version = ""
	key := index.ImageKey(l.remote, e.Image.Ref)
	if e.Collection != "" {
		key = index.ChildKey(l.remote, e.Collection)
	}
	l.batch = append(l.batch, listedName{key, e})
	return len(l.batch)
}

// flush stores the batch and tells what it changed.
func (l *relisting) flush() error {
	slices.SortStableFunc(l.batch, func(a, b listedName) int { return bytes.Compare(a.key, b.key) })
	err := l.storeBatch()
	clear(l.batch)
	l.batch = l.batch[:0]
	return l.told(err)
}

func (l *relisting) storeBatch() error {
	defer l.c.lock(l.remote, l.collection)()
	if slices.ContainsFunc(l.batch, func(n listedName) bool { return n.entry.Collection != "" }) {
		l.c.trees.Lock()
		defer l.c.trees.Unlock()
	}
	if err := l.compareAll(); err != nil {
		return err
	}
	l.changes = slices.DeleteFunc(l.changes, func(kv index.KV) bool {
		err := kv.Check()
		if err != nil && l.bad == 0 {
			l.badErr = err
		}
		if err != nil {
			l.bad++
		}
		return err != nil
	})
	if len(l.changes) == 0 {
		return nil
	}
	return l.store.Apply(l.changes...)
}

// told tells what changed, unless err says that it did not, and returns err.
func (l *relisting) told(err error) error {
	if err == nil {
		l.c.watchers.emit(l.events...)
	}
	clear(l.changes)
	clear(l.events)
	l.changes, l.events = l.changes[:0], l.events[:0]
	return err
}

// compareAll compares the batch with what is stored.
func (l *relisting) compareAll() error {
	if l.seen == nil && len(l.batch) > 0 && bytes.Compare(l.batch[0].key, l.last) < 0 {
		if err := l.loseOrder(); err != nil {
			return err
		}
	}
	if l.seen == nil {
		return l.merge()
	}
	for _, n := range l.batch {
		hash := maphash.Bytes(hashSeed, n.key)
		if _, twice := l.seen[hash]; twice {
			continue
		}
		l.seen[hash] = struct{}{}
		stored, _ := l.store.Get(n.key) // a value that is lost is written again
		l.compare(n, stored)
	}
	return nil
}

// merge compares a batch that follows the one before.
func (l *relisting) merge() error {
	i := 0
	take := func(stored []byte) {
		if !bytes.Equal(l.batch[i].key, l.last) { // else it is listed twice
			l.last = append(l.last[:0], l.batch[i].key...)
			l.compare(l.batch[i], stored)
		}
		i++
	}
	for kv, err := range l.store.Scan(l.prefix, l.after()) {
		if err != nil {
			return err
		}
		for i < len(l.batch) && bytes.Compare(l.batch[i].key, kv.Key) < 0 {
			take(nil)
		}
		if i == len(l.batch) {
			return nil
		}
		if bytes.Equal(l.batch[i].key, kv.Key) {
			take(kv.Value)
		} else {
			l.missed = append(l.missed, bytes.Clone(kv.Key))
		}
	}
	for i < len(l.batch) {
		take(nil)
	}
	return nil
}

// after is where the keys begin that were not compared yet.
func (l *relisting) after() []byte {
	if l.last == nil {
		return nil
	}
	return append(bytes.Clone(l.last), 0)
}

// loseOrder turns to remembering what was listed. Up to now that is what is
// stored, save what was missed.
func (l *relisting) loseOrder() error {
	l.seen = make(map[uint64]struct{})
	for kv, err := range index.Pages(l.store, l.prefix, nil) {
		if err != nil {
			return err
		}
		if bytes.Compare(kv.Key, l.last) > 0 {
			break
		}
		l.seen[maphash.Bytes(hashSeed, kv.Key)] = struct{}{}
	}
	for _, key := range l.missed {
		delete(l.seen, maphash.Bytes(hashSeed, key))
	}
	l.missed = nil
	return nil
}

// compare notes what must be stored because n was listed.
func (l *relisting) compare(n listedName, stored []byte) {
	if l.c.own.since(n.key, l.started) {
		return // published or deleted while the registry was listing
	}
	if n.entry.Collection != "" {
		if index.IsEmptied(stored) {
			l.emptied = append(l.emptied, n.entry.Collection)
			return
		}
		l.write(index.KV{Key: n.key, Value: stored}, index.Entry{Flags: index.InListing}, backends.Ref{})
		return
	}
	l.images++
	img := n.entry.Image
	if img.Version == "" && index.IsName(stored) &&
		backends.Ext(img.Format) == backends.Ext("") {
		return // as most are in a listing of names
	}
	old, have := index.Decode(stored, img.Ref)
	now := listedEntry(old, index.Clean(img))
	if have && old.Shown() && changed(old, now) {
		l.events = append(l.events, Event{Kind: ImageChanged, Remote: l.remote, Collection: l.collection, Ref: img.Ref})
	}
	l.changes = append(l.changes, l.c.history(l.store, l.remote, img.Ref, old, now)...)
	l.write(index.KV{Key: n.key, Value: stored}, now, img.Ref)
}

// listedEntry is what is known of an image once a listing told img of it.
func listedEntry(old index.Entry, img backends.Image) index.Entry {
	if img.Version == "" { // only the name
		if old.Flags = old.Flags&index.Full | index.InListing; !old.Is(index.Full) {
			old.Image.Format = img.Format
		}
		return old
	}
	now := index.Entry{Flags: index.InListing | index.Full | index.FromList, Image: index.Merge(old, img)}
	if old.Image.Version == img.Version {
		now.Seen = old.Seen
	}
	return now
}

// write stores e in place of what is stored, if it is something else.
func (l *relisting) write(stored index.KV, e index.Entry, ref backends.Ref) {
	value := index.Encode(e, ref)
	if bytes.Equal(stored.Value, value) {
		return
	}
	was, ok := index.Decode(stored.Value, ref)
	if !ok || !was.Shown() {
		l.c.absent.dropOlder(stored.Key, l.started)
	}
	l.names = l.names || !ok || !was.Shown() || renamed(was, e)
	l.changes = append(l.changes, index.KV{Key: stored.Key, Value: value})
}

// finish drops what the registry did not list and writes the header.
func (l *relisting) finish(truncated bool) error {
	if !truncated {
		if err := l.sweep(); err != nil {
			return err
		}
	}
	h := index.Header{Fetched: l.started, Took: l.c.Now().Sub(l.started), Count: l.images, Truncated: truncated}
	if l.c.doubted(l.remote, l.collection, l.started) {
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

// pruned reports whether the collection went with its last image meanwhile.
func (l *relisting) pruned() bool {
	if l.collection == "" {
		return false
	}
	return !l.store.Known(l.remote, l.collection) && l.c.own.since(index.ChildKey(l.remote, l.collection), l.started)
}

// end tells what the batches left to tell.
func (l *relisting) end() {
	if l.bad > 0 {
		l.c.opts.Log.Warn("names were left out of a listing", "remote", l.remote, "collection", l.collection, "count", l.bad, "first", l.badErr)
	}
	if r, err := l.c.Remote(l.remote); err == nil {
		for _, collection := range l.emptied {
			l.c.lookAgain(l.store, r, collection)
		}
	}
	if l.names && !l.first {
		l.c.watchers.emit(Event{Kind: ListingChanged, Remote: l.remote, Collection: l.collection})
	}
}
