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
// that memory does not grow with the number of images. Each batch is stored as it
// comes; the header, which says that the listing is complete, is written last.
//
// Most registries list in the order of our keys: then the two are merged. As soon as one
// does not, the hashes of all listed keys are kept, and stored keys are looked up in them.
type relisting struct {
	c          *core
	store      *index.Index
	remote     string
	collection string
	prefix     []byte    // of the keys
	started    time.Time // when the registry was asked
	old        index.Header
	first      bool            // the collection was never shown before, so that nothing is a change
	untold     map[string]bool // names of images whose tags the registry does not list; "" stands for any name

	batch  []listedName
	last   []byte              // while in order: the last key that was compared
	missed [][]byte            // while in order: stored keys before last that were not listed
	seen   map[uint64]struct{} // once out of order: hashes of the listed keys; else nil

	emptied []string   // emptied collections that the registry still lists
	changes []index.KV // of this batch
	events  []Event    // of its images
	images  int
	names   bool  // names were added or removed
	bad     int   // names that cannot be stored
	badErr  error // why, the first of them
}

// A listedName is an entry of the registry's listing.
type listedName struct {
	key   []byte
	entry backends.Entry
}

func newRelisting(c *core, s *index.Index, remote, collection string, started time.Time) *relisting {
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

// flush stores the batch and emits what it changed.
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

// told emits what changed, unless err says that it was not stored, and returns err.
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
		stored, _ := l.store.Get(n.key) // if the value cannot be read it is written again
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

// loseOrder changes from merging to remembering what was listed: up to now, what is
// stored without what was missed.
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

// compare adds to the changes what must be stored because n was listed.
func (l *relisting) compare(n listedName, stored []byte) {
	if l.c.writes.since(n.key, l.started) {
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

// listedEntry is what is known of an image after a listing had img.
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
		l.c.negative.dropOlder(stored.Key, l.started)
	}
	l.names = l.names || !ok || !was.Shown() || renamed(was, e)
	l.changes = append(l.changes, index.KV{Key: stored.Key, Value: value})
}
