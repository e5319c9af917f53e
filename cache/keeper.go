// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	// hashStep is how much is hashed before the keeper looks whether it is time
	// to make something durable.
	hashStep = 8 << 20
)

// keep is the life of the keeper: the one goroutine of a partial blob that
// hashes it as it comes in, makes it durable, and at the end verifies it and puts
// it in its place. It ends with that, or when nobody uses the blob any more.
func (d *data) keep() {
	defer close(d.kept)
	defer d.leave()
	age := d.item.cache.opts.dirtyAge
	timer := time.NewTimer(age)
	defer timer.Stop()
	for d.phase.Load() == partial {
		if d.ctx.Err() != nil {
			d.awaitFlights()
			d.commitAll()
			d.item.detach(d)
			d.file.Load().Close() // the cache is closing: handles give errors from now on
			return
		}
		more := d.hashSome()
		d.commitSome()
		if d.finished() {
			d.finish()
			continue
		}
		if more {
			continue
		}
		if d.unused() {
			d.commitAll()
			if d.item.retire(d) {
				return
			}
		}
		timer.Reset(age)
		select {
		case <-d.kick:
		case <-timer.C:
		case <-d.ctx.Done():
		}
	}
	// Whole, adopted or dead: fetches that still run are in vain.
	d.cancel()
	d.commitEnd()
	d.awaitFlights()
	d.disk.Lock()
	d.closeWriter()
	d.disk.Unlock()
	if d.phase.Load() == whole {
		d.item.cache.guard(d.item.key)
	}
	d.item.rest(d)
}

// awaitFlights returns when no fetch can write any more; d.ctx has ended.
func (d *data) awaitFlights() {
	for {
		if d.download.Running() == 0 {
			return
		}
		<-d.kick // each landing gives one
	}
}

// hashSome takes the hash further, and reports whether more can be done now.
func (d *data) hashSome() bool {
	if d.hash == nil {
		return false
	}
	first := chunks.Of(d.hash.pos)
	if d.hash.pos == d.size {
		return false
	}
	ready := min(d.have.FirstMissing(first, chunks.Count(d.size))*chunks.Size, d.size)
	end := min(ready, d.hash.pos+hashStep)
	if err := d.hash.take(d.ctx, d.file.Load(), end); err != nil && d.ctx.Err() == nil {
		d.spoil(err)
		return false
	}
	return d.hash.pos < ready
}

// finished reports whether all is here and hashed, and nobody writes any more.
func (d *data) finished() bool {
	return d.download.Running() == 0 && d.download.Complete() && (d.hash == nil || d.hash.pos == d.size)
}

// unused reports whether nothing comes in any more.
func (d *data) unused() bool {
	d.mu.Lock()
	users := d.users
	d.mu.Unlock()
	return users == 1 && d.download.Idle()
}

// finish verifies a blob of which everything is here and gives it its name. Who
// waits for the digest does not wait for the disk as well.
func (d *data) finish() {
	verdict := d.compare()
	if !d.commitEnd() {
		return // what was compared may not be what came
	}
	main := d.item.main
	if main.seize(d.ctx) != nil {
		return
	}
	defer main.release()
	d.disk.Lock()
	defer d.disk.Unlock()
	switch {
	case d.phase.Load() == partial && verdict == nil && d.item.nameless.Load():
		d.turnWhole() // and gets no name
		return
	case d.phase.Load() != partial:
		return
	case verdict != nil:
		d.quarantine(verdict)
		return
	}
	if err := fdatasync(d.written); err != nil {
		d.item.cache.opts.Log.Warn("cannot make a blob durable", "key", d.item.key, "err", err)
		d.forget(d.have.Clone())
		return
	}
	main.closeSpare()
	err := main.replace(d.item.slot().part(), d.size, d.item, d.place)
	if err != nil {
		// Readers have the bytes; the name is gone with the directory.
		d.item.cache.opts.Log.Warn("cannot keep a whole blob", "key", d.item.key, "err", err)
	}
	d.turnWhole()
}

// compare compares the digest, and tells who waits for it when it matches.
// Errors: backends.ErrCorrupt.
func (d *data) compare() error {
	if d.hash != nil {
		if err := d.hash.check(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.compared() {
		close(d.matched)
	}
	return nil
}

// compared is called with mu held.
func (d *data) compared() bool {
	select {
	case <-d.matched:
		return true
	default:
		return false
	}
}

// place gives the verified file its name, durably, and notes the verdict.
func (d *data) place() error {
	it, key := d.item, d.item.key
	dir, at := it.cache.dir, it.slot()
	if !d.inPlace() {
		return errors.New("deleted while it was fetched")
	}
	if err := d.written.Chmod(wholeMode); err != nil {
		return err
	}
	info, err := d.written.Stat()
	if err != nil {
		return err
	}
	if err := os.Rename(at.part(), dir.file(key)); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(dir.file(key))); err != nil {
		return err
	}
	verdict(dir, key, d.digest, info, it.cache.opts.Log)
	it.mu.Lock()
	it.setOnDisk(0)
	it.strike = strike{}
	it.mu.Unlock()
	d.given.verified.Store(true)
	it.main.wasVerified(info)
	return at.drop()
}

// turnWhole ends the partial phase, if it has not ended.
func (d *data) turnWhole() {
	d.mu.Lock()
	turned := d.phase.CompareAndSwap(partial, whole)
	d.mu.Unlock()
	if turned {
		d.download.End(nil)
		d.given.verified.Store(true)
		close(d.settled)
	}
}

// quarantine drops a blob whose bytes are wrong: no reader gets any more of
// them. It is fetched once more by itself. Call with disk held.
func (d *data) quarantine(err error) {
	d.item.cache.opts.Log.Error("a blob does not match its digest", "key", d.item.key,
		"size", d.size, "sources", d.sourceNames(), "err", err)
	next := d.download.Sources()[0].(source)
	again := d.item.struck(err)
	d.bury(err)
	if again {
		d.item.cache.spawn(func() { d.item.cache.refill(d.item.key, next) })
	}
}

// spoil drops a blob that cannot be read back.
func (d *data) spoil(err error) {
	d.disk.Lock()
	defer d.disk.Unlock()
	if d.phase.Load() == partial {
		d.item.cache.opts.Log.Error("a blob cannot be read back", "key", d.item.key, "err", err)
		d.bury(err)
	}
}

// bury ends the blob and removes its files. Call with disk held.
func (d *data) bury(err error) {
	wasPartial := d.kill(err)
	if err := d.item.slot().drop(); err != nil {
		d.item.cache.opts.Log.Warn("cannot remove a blob", "key", d.item.key, "err", err)
	}
	d.item.detach(d)
	d.item.cache.announce(d.item.key, Remote)
	if wasPartial {
		close(d.settled)
	}
}
