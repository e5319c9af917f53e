// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A committer is the one goroutine of a partial blob that hashes it as it comes in,
// makes it durable, and at the end verifies it and puts it in its place.
type committer struct {
	*data
	verity *verity
	refill func(Key, source) // downloads a blob without a reader
	under  *commit           // under way; nil if there is none
}

// run ends when the blob is whole, or when nobody uses it any more.
func (c *committer) run() {
	defer close(c.committed)
	defer c.leave()
	age := c.item.opts.dirtyAge
	timer := time.NewTimer(age)
	defer timer.Stop()
	for c.phase.Load() == partial {
		if c.ctx.Err() != nil {
			c.awaitFetches()
			c.commitAll()
			c.item.detach(c.data)
			c.stored.file.Load().Close() // the cache is closing: handles give errors from now on
			return
		}
		more := c.hash()
		if err := c.damaged(); err != nil {
			c.finishWith(err)
			continue
		}
		c.commitSome()
		if c.finished() {
			c.finish()
			continue
		}
		if more {
			continue
		}
		if c.unused() {
			c.commitAll()
			if c.item.retire(c.data) {
				return
			}
		}
		timer.Reset(age)
		select {
		case <-c.changed:
		case <-timer.C:
		case <-c.ctx.Done():
		}
	}
	// The blob is whole, adopted or dead: fetches that still run are not needed.
	c.cancel()
	c.commitEnd()
	c.awaitFetches()
	c.stored.disk.Lock()
	c.stored.closeWriter()
	c.stored.disk.Unlock()
	if c.phase.Load() == whole {
		c.verity.guard(c.item.key)
	}
	c.item.rest(c.data)
}

// awaitFetches returns when no fetch can write any more; ctx has ended.
func (c *committer) awaitFetches() {
	for c.download.Running() > 0 {
		<-c.changed // the end of each fetch gives one
	}
}

// hash takes the hash further, and reports whether more can be done now.
func (c *committer) hash() (more bool) {
	more, err := c.check.step(c.ctx, &c.stored)
	if err != nil && c.ctx.Err() == nil {
		c.spoil(err)
	}
	return more
}

// finished reports whether all is here and hashed, and nobody writes any more.
func (c *committer) finished() bool {
	return c.download.Running() == 0 && c.download.Complete() && c.check.done(c.size)
}

// unused reports whether nothing comes in any more.
func (c *committer) unused() bool {
	c.mu.Lock()
	users := c.users
	c.mu.Unlock()
	return users == 1 && c.download.Idle()
}

// finish verifies a blob of which everything is here and gives it its name. Readers that
// wait for the digest do not wait for the disk as well.
func (c *committer) finish() { c.finishWith(c.check.compare()) }

// damaged returns what was found wrong with what a file is made of.
func (c *committer) damaged() error {
	if c.made == nil {
		return nil
	}
	return c.made.Damage()
}

// finishWith is finish for a blob that is right, or wrong with a reason.
func (c *committer) finishWith(verdict error) {
	if !c.commitEnd() {
		return // what was compared may not be what came
	}
	f := c.item.family
	if f.seize(c.ctx) != nil {
		return
	}
	defer f.release()
	c.stored.disk.Lock()
	defer c.stored.disk.Unlock()
	switch {
	case c.phase.Load() == partial && verdict == nil && c.item.nameless.Load():
		c.turnWhole() // and gets no name
		return
	case c.phase.Load() != partial:
		return
	case verdict != nil:
		c.reject(verdict)
		return
	}
	if err := fdatasync(c.stored.written); err != nil {
		c.item.log.Warn("cannot make a blob durable", "key", c.item.key, "err", err)
		c.forget(c.stored.have.Clone())
		return
	}
	f.closeIdle()
	err := f.replace(c.item.slot().part(), c.size, c.item, c.place)
	if err != nil {
		// Readers have the bytes; the name is gone with the directory.
		c.item.log.Warn("cannot keep a whole blob", "key", c.item.key, "err", err)
	}
	c.turnWhole()
}

// place gives the verified file its name, durably, and notes the verdict.
func (c *committer) place() error {
	it, key := c.item, c.item.key
	dir, at := it.dir, it.slot()
	if !c.stored.inPlace(at.part()) {
		return errors.New("deleted while it was fetched")
	}
	if err := c.stored.written.Chmod(wholeMode); err != nil {
		return err
	}
	info, err := c.stored.written.Stat()
	if err != nil {
		return err
	}
	if err := os.Rename(at.part(), dir.file(key)); err != nil {
		return err
	}
	if err := disk.SyncDir(filepath.Dir(dir.file(key))); err != nil {
		return err
	}
	verdict(dir, key, c.check.digest, info, it.log)
	if c.made != nil {
		c.made.Held(string(key))
	}
	it.mu.Lock()
	it.setOnDisk(0)
	it.mismatch = mismatch{}
	it.mu.Unlock()
	c.check.served.verified.Store(true)
	it.family.main.arrived(info)
	return at.drop()
}

// spoil drops a blob that cannot be read back.
func (c *committer) spoil(err error) {
	c.stored.disk.Lock()
	defer c.stored.disk.Unlock()
	if c.phase.Load() == partial {
		c.item.log.Error("a blob cannot be read back", "key", c.item.key, "err", err)
		c.item.bury(c.data, err)
	}
}

// reject drops a blob whose bytes are wrong: no reader gets any more of them. It is
// fetched once more by itself. Call with disk held.
func (c *committer) reject(err error) {
	if errors.Is(err, vsif.ErrLayer) { // the image is another one from now on
		c.item.log.Info("no file can be made of a container image", "key", c.item.key, "sources", c.sourceNames(), "err", err)
		c.item.bury(c.data, err)
		return
	}
	c.item.log.Error("a blob is not what its digest says", "key", c.item.key,
		"size", c.size, "sources", c.sourceNames(), "err", err)
	next := sourceOf(c.download.Sources()[0])
	again := c.item.mismatched(err)
	c.item.bury(c.data, err)
	if again {
		c.item.spawn(func() { c.refill(c.item.key, next) })
	}
}

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
	if c.stored.due(c.item.opts.dirtyAge) {
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

// commit makes one durable, data first: a bit in the map file promises that the bytes are
// on stable storage. An error costs no more than fetching some bytes again.
func (c *committer) commit(one *commit) {
	c.stored.disk.Lock()
	defer c.stored.disk.Unlock()
	if c.phase.Load() != partial {
		return
	}
	log := c.item.log
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

// describe returns the chunk map for bits, which are durable by the time it is written.
// All chunks that were hashed are among them.
func (c *committer) describe(bits chunks.Set) *chunks.Map {
	m := &chunks.Map{File: c.chunksOf(), Have: bits}
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
