// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"github.com/sregfs/sregfs/backends"
)

// Many registries go on listing a collection whose last image was deleted: a
// repository without tags, an empty folder. Whoever removed it would find it back.
// So it is remembered as emptied, and neither listed nor there, until something is
// in it: each time its parent's listing tells of it, its own is asked for.

// isEmptied reports whether a collection lost its last image here.
func isEmptied(s Store, remote, collection string) bool {
	if collection == "" {
		return false
	}
	v, err := s.Get(childKey(remote, collection))
	return err == nil && emptiedValue(v)
}

// emptiedValue is isEmptied for what is stored.
func emptiedValue(v []byte) bool {
	return len(v) >= 2 && v[0] == codecVersion && entryFlags(v[1])&emptied != 0
}

// lookAgain lists an emptied collection behind the caller's back, if that is due.
func (c *Catalog) lookAgain(s Store, r Remote, collection string) {
	if h, ok := readHeader(s, r.Name, collection); !ok || !c.listFresh(h) {
		c.refreshLater(r, collection)
	}
}

// refilled makes a collection that something was found in, and those above it,
// appear again. It returns what to tell. Call with trees held.
func (l *relisting) refilled() (events []Event, err error) {
	if l.collection == "" || !hasEntries(l.store, l.remote, l.collection) {
		return nil, nil
	}
	var changes []KV
	for at := l.collection; at != ""; at, _ = parentOf(at) {
		if !isEmptied(l.store, l.remote, at) {
			continue
		}
		changes = append(changes, KV{childKey(l.remote, at), encodeEntry(entry{flags: listed}, backends.Ref{})})
		parent, _ := parentOf(at)
		events = append(events, Event{Kind: ListingChanged, Remote: l.remote, Collection: parent})
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return events, l.store.Apply(changes...)
}
