// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

const (
	// What a crash of the machine may cost: so long is fetched before the next
	// commit begins, and half as long where that is more than maxDirty. What comes
	// faster is fetched again as fast, and an image that is whole within a second is
	// better synced once. (A crash of the process costs neither, see recent.)
	maxDirtyAge = 2 * time.Second
	maxDirty    = 64 << 20
)

// A commit makes durable what was here when it began, beside the keeper, which
// goes on hashing: a disk takes longer than that. Its fields belong to its
// goroutine until done is closed.
type commit struct {
	dirty int64 // bytes that the map did not know of
	have  chunks.Set
	m     *chunks.Map
	lost  bool // the disk did not take all of have
	done  chan struct{}
}

// commitSome is called by the keeper now and then: it begins a commit when it is
// time for one, and ends one that is through.
func (d *data) commitSome() {
	if d.under != nil {
		select {
		case <-d.under.done:
			d.commitEnd()
		default:
			return
		}
	}
	if d.due() {
		d.commitBegin()
	}
}

// commitAll returns when all that is here is durable, as far as the disk takes it.
func (d *data) commitAll() {
	d.commitEnd()
	d.commitBegin()
	d.commitEnd()
}

// due reports whether it is time to make something durable.
func (d *data) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	age := d.item.cache.opts.dirtyAge
	if d.dirty >= maxDirty {
		age /= 2
	}
	return d.dirty > 0 && time.Since(d.dirtySince) >= age
}

// commitBegin begins a commit, if there is something to make durable. The
// goroutine ends by itself; the keeper waits for it in commitEnd.
func (d *data) commitBegin() {
	c := &commit{done: make(chan struct{})}
	d.mu.Lock()
	c.dirty, c.have = d.dirty, d.have.Clone()
	d.dirty = 0
	d.mu.Unlock()
	if c.dirty == 0 {
		return
	}
	c.m = d.describe(c.have)
	d.under = c
	go func() {
		defer close(c.done)
		d.commit(c)
		d.kickKeeper()
	}()
}

// commitEnd waits for the commit under way, if there is one, and reports
// whether nothing was lost.
func (d *data) commitEnd() bool {
	if d.under == nil {
		return true
	}
	<-d.under.done
	c := d.under
	d.under = nil
	if c.lost {
		d.disk.Lock()
		defer d.disk.Unlock()
		d.forget(c.have)
	}
	return !c.lost
}

// commit makes c durable, data first: a bit in the map file is a promise that the
// bytes are on stable storage. An error costs no more than fetching some bytes
// again one day.
func (d *data) commit(c *commit) {
	d.disk.Lock()
	defer d.disk.Unlock()
	if d.phase.Load() != partial {
		return
	}
	log := d.item.cache.opts.Log
	if err := fdatasync(d.written); err != nil {
		log.Warn("cannot make a blob durable", "key", d.item.key, "err", err)
		c.lost = true
		return
	}
	d.durable = c.have
	if info, err := d.written.Stat(); err == nil {
		d.item.measured(allocated(info))
	}
	if !d.inPlace() {
		return // deleted under us: there is nothing to be found again
	}
	if err := c.m.Write(d.item.slot().mapOf()); err != nil {
		log.Warn("cannot write a chunk map", "key", d.item.key, "err", err)
		d.mu.Lock()
		d.dirty += c.dirty
		d.dirtySince = time.Now()
		d.mu.Unlock()
	}
}

// describe returns the chunk map for bits, which are durable by the time it is
// written. The hash went over none but chunks that were here before bits were taken.
func (d *data) describe(bits chunks.Set) *chunks.Map {
	m := &chunks.Map{Blob: d.chunksOf(), Have: bits}
	if d.hash != nil {
		m.Hashed, m.HashState = d.hash.pos, d.hash.save()
	}
	return m
}

// forget drops the chunks of bits that are not durable: after a failed sync the
// kernel may have dropped their pages, and says so only once
// (lwn.net/Articles/752063). Call with disk held.
func (d *data) forget(bits chunks.Set) {
	d.download.Pause(time.Now().Add(fetch.FullPause))
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range chunks.Count(d.size) {
		if bits.Has(c) && !d.durable.Has(c) {
			d.have.Remove(c)
		}
	}
	if err := d.recent.Replace(d.have); err != nil {
		d.recent.Close()
		d.recent = nil
		_ = os.Remove(d.item.slot().recent())
	}
	if d.hash != nil {
		d.hash.reset()
	}
	if d.compared() {
		d.matched = make(chan struct{})
	}
}

// inPlace reports whether the file that is written still has its name.
func (d *data) inPlace() bool {
	named, err := os.Lstat(d.item.slot().part())
	if err != nil {
		return false
	}
	info, err := d.written.Stat()
	return err == nil && os.SameFile(named, info)
}
