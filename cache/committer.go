// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// A committer is the one goroutine of a partial blob that hashes it as it comes in,
// makes it durable, and at the end verifies it and puts it in its place.
type committer struct {
	*data
	under *commit // under way; nil if there is none
}

// run ends when the blob is whole, or when nobody uses it any more.
func (c *committer) run() {
	defer close(c.committed)
	defer c.leave()
	age := c.item.cache.opts.dirtyAge
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
	// Whole, adopted or dead: fetches that still run are in vain.
	c.cancel()
	c.commitEnd()
	c.awaitFetches()
	c.stored.disk.Lock()
	c.stored.closeWriter()
	c.stored.disk.Unlock()
	if c.phase.Load() == whole {
		c.item.cache.guard(c.item.key)
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

// finish verifies a blob of which everything is here and gives it its name. Who
// waits for the digest does not wait for the disk as well.
func (c *committer) finish() {
	verdict := c.check.compare()
	if !c.commitEnd() {
		return // what was compared may not be what came
	}
	main := c.item.main
	if main.seize(c.ctx) != nil {
		return
	}
	defer main.release()
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
		c.item.cache.opts.Log.Warn("cannot make a blob durable", "key", c.item.key, "err", err)
		c.forget(c.stored.have.Clone())
		return
	}
	main.closeIdle()
	err := main.replace(c.item.slot().part(), c.size, c.item, c.place)
	if err != nil {
		// Readers have the bytes; the name is gone with the directory.
		c.item.cache.opts.Log.Warn("cannot keep a whole blob", "key", c.item.key, "err", err)
	}
	c.turnWhole()
}

// place gives the verified file its name, durably, and notes the verdict.
func (c *committer) place() error {
	it, key := c.item, c.item.key
	dir, at := it.cache.dir, it.slot()
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
	verdict(dir, key, c.check.digest, info, it.cache.opts.Log)
	it.mu.Lock()
	it.setOnDisk(0)
	it.mismatch = mismatch{}
	it.mu.Unlock()
	c.check.served.verified.Store(true)
	it.main.wasVerified(info)
	return at.drop()
}

// reject drops a blob whose bytes are wrong: no reader gets any more of them. It is
// fetched once more by itself. Call with disk held.
func (c *committer) reject(err error) {
	c.item.cache.opts.Log.Error("a blob does not match its digest", "key", c.item.key,
		"size", c.size, "sources", c.sourceNames(), "err", err)
	next := c.download.Sources()[0].(source)
	again := c.item.mismatched(err)
	c.bury(err)
	if again {
		c.item.cache.spawn(func() { c.item.cache.refill(c.item.key, next) })
	}
}
