// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A data is one blob while somebody has it open or it is being fetched: all handles of
// a blob share it. It is made of the bytes that are here, the download that brings the
// others, and the check whether they are right. One committer makes what comes in
// durable, verifies it and puts it in its place.
type data struct {
	item   *item
	size   int64
	info   os.FileInfo // of the file, if it was whole when it was opened; else nil
	shared bool        // the file is another cache's

	stored   stored
	check    check
	download *fetch.Download // nil if it was whole when it was opened
	hinted   atomic.Bool     // the hints were asked for, or are not needed

	ctx       context.Context //nolint:containedctx // of the download, which serves many callers; ends with the cache or when it is in vain
	cancel    context.CancelFunc
	changed   chan struct{} // wakes the committer
	committed chan struct{} // closed when the committer has ended
	settled   chan struct{} // closed when whole or dead
	phase     atomic.Int32  // partial, whole or dead

	mu      sync.Mutex // guards the fields below
	users   int        // handles and the committer: the last one closes the files
	failure error      // why it is dead
}

// The phases of a data. It goes from partial to one of the others, once.
const (
	partial int32 = iota
	whole
	dead
)

// has reports whether the bytes [off, end) can be read from the file now.
// Without a lock: it may miss what is just coming in.
func (d *data) has(off, end int64) bool {
	return d.phase.Load() == whole || d.stored.have.All(chunks.Of(off), chunks.Count(end))
}

// state tells how much is here.
func (d *data) state() State {
	switch {
	case d.phase.Load() == whole:
		return Cached
	case d.stored.have.Len() > 0:
		return Partial
	}
	return Remote
}

// present returns how many bytes are here.
func (d *data) present() int64 {
	if d.phase.Load() == whole {
		return d.size
	}
	return d.stored.present()
}

// notifyCommitter makes the committer look again. It does not block.
func (d *data) notifyCommitter() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// kill ends the blob with err for all who have it open, and reports whether it
// was still partial. What waits for settled is told by the caller.
func (d *data) kill(err error) bool {
	d.mu.Lock()
	if d.failure == nil {
		d.failure = err
	}
	was := d.phase.Swap(dead)
	err = d.failure
	d.mu.Unlock()
	if d.download != nil {
		d.download.End(err)
	}
	d.cancel()
	return was == partial
}

// deadErr is why the blob is dead, nil if it is not.
func (d *data) deadErr() error {
	if d.phase.Load() != dead {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// leave gives up one use; the last one closes the files.
func (d *data) leave() {
	d.mu.Lock()
	d.users--
	last := d.users == 0
	d.mu.Unlock()
	if !last {
		return
	}
	d.cancel()
	d.stored.close()
}

// turnWhole ends the partial phase, if it has not ended.
func (d *data) turnWhole() {
	d.mu.Lock()
	turned := d.phase.CompareAndSwap(partial, whole)
	d.mu.Unlock()
	if turned {
		d.download.End(nil)
		d.check.served.verified.Store(true)
		close(d.settled)
	}
}

// spoil drops a blob that cannot be read back.
func (d *data) spoil(err error) {
	d.stored.disk.Lock()
	defer d.stored.disk.Unlock()
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
