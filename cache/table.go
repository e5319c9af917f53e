// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A table is which blobs the cache knows. To change the files of one, take its family
// first.
type table struct {
	*common
	idle idleBlobs

	mu       sync.Mutex // guards the field below, and the parts of the families
	families map[Key]*family
}

// A family is all that the cache has of one key. The main item is that of the whole
// and verified blob. Its parts are what came in of it and was not verified yet, each
// from one origin: their readers believe that origin. When a part is whole and verified,
// it becomes the main item, and readers of other parts go on with that.
type family struct {
	table *table
	main  *item
	parts map[origin]*item // guarded by table.mu

	// busy is full while somebody opens, replaces or removes the files of the key. It
	// guards the field below.
	busy    chan struct{}
	guarded bool // the kernel was asked to watch over the whole file
}

// add returns a new family. Call with mu held.
func (t *table) add(key Key) *family {
	f := &family{table: t, parts: map[origin]*item{}, busy: make(chan struct{}, 1)}
	f.main = f.newItem(key, "")
	t.families[key] = f
	return f
}

func (f *family) newItem(key Key, from origin) *item {
	return &item{common: f.table.common, family: f, key: key, from: from, rec: Record{Key: key, Size: -1, State: Remote}}
}

// addPart returns another part. Call with table.mu held.
func (f *family) addPart(from origin) *item {
	p := f.newItem(f.main.key, from)
	f.parts[from] = p
	return p
}

// take returns the family of key with its lock held; release gives it back.
// Errors: ctx's; ErrClosed.
func (t *table) take(ctx context.Context, key Key) (*family, error) {
	for {
		f, err := t.lookup(key)
		if err != nil {
			return nil, err
		}
		if err := f.seize(ctx); err != nil {
			return nil, err
		}
		if t.get(key) == f && !t.handedOver.Load() {
			return f, nil
		}
		<-f.busy // it was forgotten meanwhile
	}
}

// lookup returns the family of key, which it makes if need be.
func (t *table) lookup(key Key) (*family, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || t.handedOver.Load() {
		return nil, ErrClosed
	}
	if f := t.families[key]; f != nil {
		return f, nil
	}
	return t.add(key), nil
}

// get returns the family of key, nil if there is none.
func (t *table) get(key Key) *family {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.families[key]
}

// items returns all items, in no order.
func (t *table) items() []*item {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := make([]*item, 0, len(t.families))
	for _, f := range t.families {
		items = append(items, f.main)
		for _, p := range f.parts {
			items = append(items, p)
		}
	}
	return items
}

// handOver lets no family be taken any more. It reports false if none could be before.
func (t *table) handOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ctx.Err() == nil && !t.handedOver.Swap(true)
}

// seize takes the lock. Errors: ctx's; ErrClosed.
func (f *family) seize(ctx context.Context) error {
	select {
	case f.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-f.table.ctx.Done():
		return ErrClosed
	}
}

// trySeize takes the lock if nobody has it.
func (f *family) trySeize() bool {
	select {
	case f.busy <- struct{}{}:
		return true
	default:
		return false
	}
}

// release gives the lock back. Items of which nothing is here are forgotten; only here,
// because a caller that found a new family of the same key would not wait for this lock.
func (f *family) release() {
	for _, it := range f.members() {
		f.forgetUnused(it)
	}
	<-f.busy
}

// tidy is called after leaveData, without item.mu: the item is forgotten if nothing is
// here, now or when the lock is released.
func (f *family) tidy() {
	if f.trySeize() {
		f.release()
	}
}

// members returns the parts, and at the end the main item.
func (f *family) members() []*item {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	return append(slices.Collect(maps.Values(f.parts)), f.main)
}

// part returns the part that comes from an origin, nil if there is none.
func (f *family) part(from origin) *item {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	return f.parts[from]
}

// makePart is part, but makes it if need be. Call with the lock held.
func (f *family) makePart(from origin) *item {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	if p := f.parts[from]; p != nil {
		return p
	}
	return f.addPart(from)
}

// forgetUnused takes an item out of the table if nothing is here of it. Call with the
// lock held.
func (f *family) forgetUnused(it *item) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.rec.State != Remote || it.data != nil || it.handles > 0 || it.mismatch.row > 0 {
		return
	}
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !it.isMain():
		delete(f.parts, it.from)
	case len(f.parts) == 0 && t.families[it.key] == f:
		delete(t.families, it.key)
	}
}

// closeIdle is called before the files of the whole blob are removed.
func (f *family) closeIdle() {
	if d := f.table.idle.take(f.main); d != nil {
		d.leave()
	}
}

// reconcile fills the table from the directory, which is the truth, with what
// the index remembers of the files that are there.
func (t *table) reconcile() error {
	slots, err := t.dir.walk()
	if err != nil {
		return err
	}
	known := t.records.load()
	for _, f := range slots {
		rec, have, ok := t.recover(f, known[f.key])
		if !ok {
			continue
		}
		all := t.families[f.key]
		if all == nil {
			all = t.add(f.key)
		}
		it := all.main
		if f.from != "" {
			it = all.addPart(f.from)
		}
		it.rec, it.have = rec, have
		t.usage.blobs.Add(rec.OnDisk)
	}
	for _, f := range t.families {
		if f.main.rec.State == Cached {
			f.eraseParts()
		}
	}
	for key := range known {
		if t.families[key] == nil {
			t.records.dropped[key] = true
		}
	}
	return nil
}

// eraseParts removes what a crash left beside a whole blob.
func (f *family) eraseParts() {
	for from, p := range f.parts {
		p.mu.Lock()
		err := p.erase()
		p.mu.Unlock()
		if err != nil {
			p.log.Warn("cannot remove what a crash left", "key", p.key, "err", err)
			continue
		}
		delete(f.parts, from)
	}
}

// recover returns what is known of the files of a slot, and how many bytes of the
// blob are there. ok is false if they are of no use; they are deleted then.
func (t *table) recover(f *found, old Record) (rec Record, have int64, ok bool) {
	at := t.dir.slot(f.key, f.from)
	var m *chunks.Map
	if f.mapped {
		m, _ = readMap(at.mapOf())
	}
	if f.part != nil && f.recent {
		m = t.withRecent(m, f, at)
	}
	switch {
	case f.file != nil:
		rec = Record{Key: f.key, Size: f.file.Size(), State: Cached, OnDisk: disk.Allocated(f.file), Used: f.file.ModTime()}
		have = rec.Size
		if m != nil && m.Verified == f.file.ModTime().UnixNano() && m.Size == rec.Size {
			rec.Verified, rec.ModTime = f.file.ModTime(), f.file.ModTime()
		}
		if old.Size == rec.Size && old.ModTime.Equal(f.file.ModTime()) {
			rec.Verified, rec.ModTime = old.Verified, old.ModTime
		}
		if rec.Verified.IsZero() {
			rec.State = Partial
		}
	case f.part != nil && m != nil && m.Name == string(f.key)+"."+string(f.from):
		rec = Record{Key: f.key, Size: m.Size, State: Partial, OnDisk: disk.Allocated(f.part), Used: f.part.ModTime()}
		have = m.Have.Bytes(m.Size)
	default:
		if err := at.drop(); err != nil {
			t.log.Warn("cannot remove what a crash left", "key", f.key, "err", err)
		}
		return Record{}, 0, false
	}
	if old.Used.After(rec.Used) {
		rec.Used = old.Used
	}
	return rec, have, true
}

// withRecent adds the chunks that outlived a killed process to what the map says.
// Only a blob named by its digest is found again without being opened.
func (t *table) withRecent(m *chunks.Map, f *found, at slot) *chunks.Map {
	of := chunks.File{Name: string(f.key) + "." + string(f.from), Digest: string(f.key), Size: f.part.Size()}
	have, ok := readRecent(at.recent(), of)
	if !ok {
		return m
	}
	if m == nil || m.Size != of.Size {
		return &chunks.Map{File: of, Have: have}
	}
	m.Have.Merge(have)
	return m
}
