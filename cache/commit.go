// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"time"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

const (
	// What a crash of the machine may cost: so long is fetched before the next
	// commit begins, and half as long where that is more than maxDirty. What comes
	// faster is fetched again as fast, and an image that is whole within a second is
	// better synced once. (A crash of the process costs neither, see chunks.Recent.)
	maxDirtyAge = 2 * time.Second
	maxDirty    = 64 << 20
)

// A commit makes durable what was here when it began, beside the committer, which
// goes on hashing: a disk takes longer than that. Its fields belong to its
// goroutine until done is closed.
type commit struct {
	dirty int64 // bytes that the map did not know of
	have  chunks.Set
	m     *chunks.Map
	lost  bool // the disk did not take all of have
	done  chan struct{}
}

// commitSome is called now and then: it begins a commit when it is time for one, and
// ends one that is through.
func (c *committer) commitSome() {
	if c.under != nil {
		select {
		case <-c.under.done:
			c.commitEnd()
		default:
			return
		}
	}
	if c.stored.due(c.item.cache.opts.dirtyAge) {
		c.commitBegin()
	}
}

// commitAll returns when all that is here is durable, as far as the disk takes it.
func (c *committer) commitAll() {
	c.commitEnd()
	c.commitBegin()
	c.commitEnd()
}

// commitBegin begins a commit, if there is something to make durable. The goroutine
// ends by itself; commitEnd waits for it.
func (c *committer) commitBegin() {
	one := &commit{done: make(chan struct{})}
	if one.dirty, one.have = c.stored.takeDirty(); one.dirty == 0 {
		return
	}
	one.m = c.describe(one.have)
	c.under = one
	go func() {
		defer close(one.done)
		c.commit(one)
		c.notifyCommitter()
	}()
}

// commitEnd waits for the commit under way, if there is one, and reports whether
// nothing was lost.
func (c *committer) commitEnd() bool {
	one := c.under
	if one == nil {
		return true
	}
	<-one.done
	c.under = nil
	if one.lost {
		c.stored.disk.Lock()
		defer c.stored.disk.Unlock()
		c.forget(one.have)
	}
	return !one.lost
}

// commit makes one durable, data first: a bit in the map file is a promise that the
// bytes are on stable storage. An error costs no more than fetching some bytes
// again one day.
func (c *committer) commit(one *commit) {
	c.stored.disk.Lock()
	defer c.stored.disk.Unlock()
	if c.phase.Load() != partial {
		return
	}
	log := c.item.cache.opts.Log
	if err := fdatasync(c.stored.written); err != nil {
		log.Warn("cannot make a blob durable", "key", c.item.key, "err", err)
		one.lost = true
		return
	}
	c.stored.durable = one.have
	if info, err := c.stored.written.Stat(); err == nil {
		c.item.measured(disk.Allocated(info))
	}
	if !c.stored.inPlace(c.item.slot().part()) {
		return // deleted under us: there is nothing to be found again
	}
	if err := one.m.Write(c.item.slot().mapOf()); err != nil {
		log.Warn("cannot write a chunk map", "key", c.item.key, "err", err)
		c.stored.putDirty(one.dirty)
	}
}

// describe returns the chunk map for bits, which are durable by the time it is
// written. The hash went over none but chunks that were here before bits were taken.
func (c *committer) describe(bits chunks.Set) *chunks.Map {
	m := &chunks.Map{Blob: c.chunksOf(), Have: bits}
	if h := c.check.hash; h != nil {
		m.Hashed, m.HashState = h.pos, h.save()
	}
	return m
}

// forget drops the chunks of bits that are not durable, see stored.forget. Call with
// disk held.
func (c *committer) forget(bits chunks.Set) {
	c.download.Pause(time.Now().Add(fetch.FullPause))
	c.stored.forget(bits, c.item.slot().recent())
	c.check.afresh()
}
