// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// Many registries go on listing a collection whose last image was deleted: a
// repository without tags, an empty folder. Whoever removed it would find it back.
// So it is remembered as emptied, and neither listed nor there, until something is
// in it: each time its parent's listing tells of it, its own is asked for.

// lookAgain lists an emptied collection behind the caller's back, if that is due.
func (c *Catalog) lookAgain(s *index.Index, r Remote, collection string) {
	if h, ok := s.Header(r.Name, collection); !ok || !c.listFresh(h) {
		c.refreshLater(r, collection)
	}
}

// refilled makes a collection that something was found in, and those above it,
// appear again. It returns what to tell. Call with trees held.
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
