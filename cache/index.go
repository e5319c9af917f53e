// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// saveDelay is how long changed records are gathered before they are saved.
const saveDelay = 5 * time.Second

// reconcile fills the table from the directory, which is the truth, with what
// the index remembers of the files that are there.
func (c *Cache) reconcile() error {
	slots, err := c.dir.walk()
	if err != nil {
		return err
	}
	known := c.load()
	for _, f := range slots {
		rec, have, ok := c.recover(f, known[f.key])
		if !ok {
			continue
		}
		it := c.items[f.key]
		if it == nil {
			it = newItem(c, f.key)
			c.items[f.key] = it
		}
		if f.from != "" {
			it = it.newPart(f.from)
		}
		it.rec, it.have = rec, have
		c.used.Add(rec.OnDisk)
	}
	for _, it := range c.items {
		if it.rec.State == Cached {
			c.eraseParts(it)
		}
	}
	for key := range known {
		if c.items[key] == nil {
			c.dropped[key] = true
		}
	}
	return nil
}

// eraseParts removes what a crash left beside a whole blob.
func (c *Cache) eraseParts(it *item) {
	for from, p := range it.parts {
		p.mu.Lock()
		err := p.erase()
		p.mu.Unlock()
		if err != nil {
			c.opts.Log.Warn("cannot remove what a crash left", "key", it.key, "err", err)
			continue
		}
		delete(it.parts, from)
	}
}

// load reads the index. What cannot be read is not remembered.
func (c *Cache) load() map[Key]Record {
	known := map[Key]Record{}
	if c.opts.Index == nil {
		return known
	}
	for rec, err := range c.opts.Index.Load() {
		if err != nil {
			c.opts.Log.Warn("cannot read the cache's index", "err", err)
			break
		}
		if rec.Key.valid() {
			known[rec.Key] = rec
		}
	}
	return known
}

// recover returns what is known of the files of a slot, and how many bytes of the
// blob are there. ok is false if they are of no use; they are deleted then.
func (c *Cache) recover(f *found, old Record) (rec Record, have int64, ok bool) {
	at := c.dir.slot(f.key, f.from)
	var m *chunks.Map
	if f.mapped {
		m, _ = readMap(at.mapOf())
	}
	if f.part != nil && f.recent {
		m = c.withRecent(m, f, at)
	}
	switch {
	case f.whole != nil:
		rec = Record{Key: f.key, Size: f.whole.Size(), State: Cached, OnDisk: disk.Allocated(f.whole), Used: f.whole.ModTime()}
		have = rec.Size
		if m != nil && m.Verified == f.whole.ModTime().UnixNano() && m.Size == rec.Size {
			rec.Verified, rec.ModTime = f.whole.ModTime(), f.whole.ModTime()
		}
		if old.Size == rec.Size && old.ModTime.Equal(f.whole.ModTime()) {
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
			c.opts.Log.Warn("cannot remove what a crash left", "key", f.key, "err", err)
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
func (c *Cache) withRecent(m *chunks.Map, f *found, at slot) *chunks.Map {
	of := chunks.Blob{Name: string(f.key) + "." + string(f.from), Digest: string(f.key), Size: f.part.Size()}
	have, ok := readRecent(at.recent(), of)
	if !ok {
		return m
	}
	if m == nil || m.Size != of.Size {
		return &chunks.Map{Blob: of, Have: have}
	}
	m.Have.Merge(have)
	return m
}

// touch notes that a record changed.
func (c *Cache) touch(key Key) {
	if c.opts.Index == nil {
		return
	}
	c.mu.Lock()
	known := c.stale[key]
	c.stale[key] = true
	c.mu.Unlock()
	if !known {
		c.poke(c.tidy)
	}
}

// changed is touch, and a look at the limits.
func (c *Cache) changed(it *item) {
	c.touch(it.key)
	c.poke(c.full)
}

// lookEvery is how often the limits are looked at because blobs are closed, as long
// as they hold: somebody else may fill the disk.
const lookEvery = time.Second

// wasOpen notes that a handle on a blob was closed, which may let it be evicted.
func (c *Cache) wasOpen(it *item) {
	c.touch(it.key)
	now, last := time.Now().UnixNano(), c.looked.Load()
	if c.crowded.Load() || now-last >= int64(lookEvery) && c.looked.CompareAndSwap(last, now) {
		c.poke(c.full)
	}
}

func (c *Cache) poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// janitor saves records and keeps the limits. It ends with the cache, or when that is
// handed over.
func (c *Cache) janitor() {
	defer close(c.left)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due <-chan time.Time
	idle := time.NewTimer(0)
	defer idle.Stop()
	look := time.NewTicker(metadataEvery)
	defer look.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.leave:
			return
		case <-c.full:
			c.trim(0)
		case <-look.C:
			c.metadata()
			c.trim(0)
		case <-c.tidy:
			if due == nil {
				timer.Reset(saveDelay)
				due = timer.C
			}
		case <-due:
			due = nil
			if err := c.save(); err != nil {
				c.opts.Log.Warn("cannot save the cache's index", "err", err)
			}
		case <-c.idled:
			idle.Reset(idleAge)
		case <-idle.C:
			if c.idle.close(idleAge) {
				idle.Reset(idleAge)
			}
		}
	}
}

// save writes the changed records. Those that could not be saved are not tried
// again before they change: the files tell all that matters.
func (c *Cache) save() error {
	c.mu.Lock()
	stale, dropped := c.stale, c.dropped
	c.stale, c.dropped = map[Key]bool{}, map[Key]bool{}
	c.mu.Unlock()
	if c.opts.Index == nil {
		return nil
	}
	var records []Record
	for key := range stale {
		if info := c.Info(key); info.State != Remote && !info.Shared {
			records = append(records, info.Record)
		} else {
			dropped[key] = true
		}
	}
	var gone []string
	for key := range dropped {
		gone = append(gone, string(key))
	}
	var errs []error
	if len(records) > 0 {
		errs = append(errs, c.opts.Index.Save(records...))
	}
	if len(gone) > 0 {
		errs = append(errs, c.opts.Index.Remove(gone...))
	}
	return errors.Join(errs...)
}
