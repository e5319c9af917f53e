// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

const (
	// How long the names of a remote are kept after the last search.
	namesLife = 5 * time.Minute
	// How many names that a table lacks are kept beside it. With more, the
	// next search makes it again.
	maxAdded = 10_000
)

// A nameIndex keeps the names of the remotes that are searched. A search that
// finds none reads the whole store, and leaves them for the next one; they are
// dropped some time after the last search. The zero value is ready.
type nameIndex struct {
	mu      sync.Mutex // guards the fields below
	remotes map[string]*remoteNames
	timer   *time.Timer // drops all
	closed  bool
}

type remoteNames struct {
	table *nameTable          // nil while it is made
	added map[string]struct{} // keys stored since that began and not in the table
	gone  int                 // keys deleted since
}

// begin returns a table for the caller to fill and pass to finish; nil if there is one, or
// another caller is filling it.
func (x *nameIndex) begin(remote string) *nameTable {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.remotes[remote] != nil {
		return nil
	}
	if x.remotes == nil {
		x.remotes = make(map[string]*remoteNames)
	}
	x.remotes[remote] = &remoteNames{added: make(map[string]struct{})}
	return newNameTable(remote)
}

// finish keeps a table that begin returned, if it is complete. After one that is too large
// there is no other until everything is dropped.
func (x *nameIndex) finish(t *nameTable, whole bool) {
	if t == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.remotes[t.remote]
	if r == nil || r.table != nil {
		return // dropped meanwhile
	}
	if !whole {
		delete(x.remotes, t.remote)
		return
	}
	x.touch()
	if t.full() {
		return
	}
	for key := range r.added {
		if t.has([]byte(key)) {
			delete(r.added, key)
		}
	}
	r.table = t
}

// find returns the keys of images that m may mean, in their order, at most one
// for every few images there are; ok is false where the store must be read as
// a whole. Not all of them need still be there.
func (x *nameIndex) find(remote string, m *Matcher) (keys [][]byte, ok bool) {
	x.mu.Lock()
	r := x.remotes[remote]
	if r == nil || r.table == nil {
		x.mu.Unlock()
		return nil, false
	}
	x.touch()
	table := r.table
	for key := range r.added {
		if m.key(remote, []byte(key)) {
			keys = append(keys, []byte(key))
		}
	}
	x.mu.Unlock()

	// To get one pair takes as long as to pass over eight.
	found, ok := table.find(m, max(256, table.count/8))
	if !ok || len(keys) == 0 {
		return found, ok
	}
	keys = append(keys, found...)
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), true
}

// note is called with all changes of the store, after they were made.
func (x *nameIndex) note(changes []KV) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.remotes) == 0 {
		return
	}
	for _, kv := range changes {
		remote, _, _, _, ok := cutImageKey(kv.Key)
		if !ok {
			continue
		}
		r := x.remotes[string(remote)]
		switch {
		case r == nil:
		case kv.Value == nil:
			r.gone++
		case r.table == nil || !r.table.has(kv.Key):
			r.added[string(kv.Key)] = struct{}{}
		}
		if r != nil && (len(r.added) > maxAdded || r.table != nil && r.gone > maxAdded+r.table.count/4) {
			delete(x.remotes, string(remote))
		}
	}
}

// touch puts off the time when all is dropped. Called with x.mu held.
func (x *nameIndex) touch() {
	if x.closed {
		return
	}
	if x.timer == nil {
		x.timer = time.AfterFunc(namesLife, x.drop)
		return
	}
	x.timer.Reset(namesLife)
}

// drop forgets all names.
func (x *nameIndex) drop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.remotes)
}

// close drops all names for good.
func (x *nameIndex) close() {
	x.drop()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if x.timer != nil {
		x.timer.Stop()
	}
}
