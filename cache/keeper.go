// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// What a crash may cost: so much is fetched before it is made durable.
	maxDirty    = 64 << 20
	maxDirtyAge = 2 * time.Second
	// hashStep is how much is hashed before the keeper looks whether it is time
	// to make something durable.
	hashStep = 32 << 20
)

// keep is the life of the keeper: the one goroutine of a partial blob that
// hashes it as it comes in, makes it durable, and at the end verifies it and puts
// it in its place. It ends with that, or when nobody uses the blob any more.
func (d *data) keep() {
	defer d.leave()
	age := d.item.cache.opts.dirtyAge
	timer := time.NewTimer(age)
	defer timer.Stop()
	for d.phase.Load() == partial {
		if d.ctx.Err() != nil {
			d.awaitFlights()
			d.commit()
			d.item.detach(d)
			d.file.Load().Close() // the cache is closing: handles give errors from now on
			return
		}
		more := d.hashSome()
		if d.due() {
			d.commit()
		}
		if d.finished() {
			d.finish()
			continue
		}
		if more {
			continue
		}
		if d.unused() {
			d.commit()
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
	// Whole, adopted or dead: flights that still run are in vain.
	d.cancel()
	d.awaitFlights()
	d.disk.Lock()
	d.closeWriter()
	d.disk.Unlock()
	if d.phase.Load() == whole {
		d.item.cache.guard(d.item.key)
	}
	d.item.rest(d)
}

// awaitFlights returns when no flight can write any more; d.ctx has ended.
func (d *data) awaitFlights() {
	for {
		d.mu.Lock()
		n := d.flights
		d.mu.Unlock()
		if n == 0 {
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
	first := chunkOf(d.hash.pos)
	if d.hash.pos == d.size {
		return false
	}
	ready := min(d.have.firstMissing(first, chunks(d.size))*chunkSize, d.size)
	end := min(ready, d.hash.pos+hashStep)
	if err := d.hash.take(d.ctx, d.file.Load(), end); err != nil && d.ctx.Err() == nil {
		d.spoil(err)
		return false
	}
	return d.hash.pos < ready
}

// due reports whether it is time to make something durable.
func (d *data) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dirty >= maxDirty || d.dirty > 0 && time.Since(d.dirtySince) >= d.item.cache.opts.dirtyAge
}

// finished reports whether all is here and hashed, and nobody writes any more.
func (d *data) finished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flights == 0 && d.complete() && (d.hash == nil || d.hash.pos == d.size)
}

// unused reports whether nothing comes in any more.
func (d *data) unused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.users == 1 && d.flights == 0 && d.filler == nil
}

// commit makes durable what is here, data first: a bit in the map file is a
// promise that the bytes are on stable storage. An error costs no more than
// fetching some bytes again one day.
func (d *data) commit() {
	d.disk.Lock()
	defer d.disk.Unlock()
	d.mu.Lock()
	dirty, bits := d.dirty, d.have.clone()
	d.dirty = 0
	d.mu.Unlock()
	if dirty == 0 || d.phase.Load() != partial {
		return
	}
	log := d.item.cache.opts.Log
	if err := fdatasync(d.written); err != nil {
		log.Warn("cannot make a blob durable", "key", d.item.key, "err", err)
		d.forget(bits)
		return
	}
	d.durable = bits
	if info, err := d.written.Stat(); err == nil {
		d.item.measured(allocated(info))
	}
	if !d.inPlace() {
		return // deleted under us: there is nothing to be found again
	}
	m := d.describe(bits)
	if err := m.write(d.item.cache.dir.mapOf(d.item.key)); err != nil {
		log.Warn("cannot write a chunk map", "key", d.item.key, "err", err)
		d.mu.Lock()
		d.dirty += dirty
		d.dirtySince = time.Now()
		d.mu.Unlock()
	}
}

// describe returns the chunk map for bits, which are durable. The hash went
// over none but chunks that were here before bits were taken.
func (d *data) describe(bits bitmap) *chunkMap {
	m := &chunkMap{key: d.item.key, digest: d.digest, size: d.size, have: bits}
	if d.hash != nil {
		m.hashed, m.state = d.hash.pos, d.hash.save()
	}
	return m
}

// forget drops the chunks of bits that are not durable: after a failed sync the
// kernel may have dropped their pages, and says so only once
// (lwn.net/Articles/752063).
func (d *data) forget(bits bitmap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range chunks(d.size) {
		if bits.has(c) && !d.durable.has(c) {
			d.have.clear(c)
		}
	}
	if err := d.recent.replace(d.have); err != nil {
		d.recent.close()
		d.recent = nil
		_ = os.Remove(d.item.cache.dir.recent(d.item.key))
	}
	d.full = time.Now().Add(fullPause)
	if d.hash != nil {
		d.hash.reset()
	}
}

// inPlace reports whether the file that is written still has its name.
func (d *data) inPlace() bool {
	named, err := os.Lstat(d.item.cache.dir.part(d.item.key))
	if err != nil {
		return false
	}
	info, err := d.written.Stat()
	return err == nil && os.SameFile(named, info)
}

// finish verifies a blob of which everything is here and gives it its name.
func (d *data) finish() {
	d.disk.Lock()
	defer d.disk.Unlock()
	if d.phase.Load() != partial {
		return
	}
	if d.hash != nil {
		if err := d.hash.check(); err != nil {
			d.quarantine(err)
			return
		}
	}
	if err := fdatasync(d.written); err != nil {
		d.item.cache.opts.Log.Warn("cannot make a blob durable", "key", d.item.key, "err", err)
		d.forget(d.have.clone())
		return
	}
	info, err := d.place()
	if err != nil {
		// Readers have the bytes; the name is gone with the directory.
		d.item.cache.opts.Log.Warn("cannot keep a whole blob", "key", d.item.key, "err", err)
	}
	d.turnWhole(func() { d.item.wasVerified(info, err == nil) })
}

// place gives the verified file its name, durably, and notes the verdict.
func (d *data) place() (os.FileInfo, error) {
	dir, key := d.item.cache.dir, d.item.key
	if !d.inPlace() {
		return nil, errors.New("deleted while it was fetched")
	}
	if err := d.written.Chmod(wholeMode); err != nil {
		return nil, err
	}
	info, err := d.written.Stat()
	if err != nil {
		return nil, err
	}
	if err := os.Rename(dir.part(key), dir.file(key)); err != nil {
		return nil, err
	}
	if err := syncFolder(filepath.Dir(dir.file(key))); err != nil {
		return nil, err
	}
	verdict(dir, key, d.digest, info, d.item.cache.opts.Log)
	return info, ignoreMissing(os.Remove(dir.recent(key)))
}

// turnWhole ends the partial phase, if it has not ended. note is called before
// those who wait for the end are woken: what they look up must be true.
func (d *data) turnWhole(note func()) {
	d.mu.Lock()
	turned := d.phase.CompareAndSwap(partial, whole)
	if turned {
		d.trouble = trouble{}
	}
	d.mu.Unlock()
	if turned {
		note()
		close(d.settled)
	}
}

// quarantine drops a blob whose bytes are wrong: no reader gets any more of
// them. It is fetched once more by itself. Call with disk held.
func (d *data) quarantine(err error) {
	d.mu.Lock()
	from := slices.Clone(d.sources)
	d.mu.Unlock()
	var names []string
	for _, src := range from {
		names = append(names, src.client.Name()+"://"+src.image.Ref.String())
	}
	d.item.cache.opts.Log.Error("a blob does not match its digest", "key", d.item.key,
		"size", d.size, "sources", names, "err", err)
	next, again := d.item.strike(err, from)
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
	if err := d.item.cache.dir.drop(d.item.key); err != nil {
		d.item.cache.opts.Log.Warn("cannot remove a blob", "key", d.item.key, "err", err)
	}
	d.item.detach(d)
	d.item.cache.announce(d.item.key, Remote)
	if wasPartial {
		close(d.settled)
	}
}
