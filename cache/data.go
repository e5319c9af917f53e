// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A data is the bytes of one blob while somebody has it open or it is being
// fetched: all handles of a blob share it.
//
// Readers look at state and have without a lock. What is missing the download fetches,
// and one keeper makes it durable, verifies it and puts it in its place (keeper.go).
//
// Locks are taken in this order: item.busy, disk, item.mu, those of package fetch, mu,
// Cache.mu; that of the schedulers last.
type data struct {
	item   *item
	size   int64
	digest string // to verify; "" if there is none

	file    atomic.Pointer[os.File] // for reading; replaced once, by Adopt
	info    os.FileInfo             // of the file, if it was whole when it was opened; else nil
	shared  bool                    // the file is another cache's
	phase   atomic.Int32            // partial, whole or dead
	have    chunks.Set              // chunks that can be read; empty if it was whole when it was opened
	settled chan struct{}           // closed when whole or dead
	given   *given                  // which chunks readers got; nil if it was whole when it was opened
	hinted  atomic.Bool             // the hints were asked for, or are not needed

	download *fetch.Download // nil if it was whole when it was opened
	ctx      context.Context //nolint:containedctx // of the download, which serves many callers; ends with the cache or when it is in vain
	cancel   context.CancelFunc
	kick     chan struct{} // wakes the keeper
	kept     chan struct{} // closed when the keeper has ended

	disk    sync.Mutex     // held while the map or the names of the files change
	written *os.File       // for writing; nil when whole
	hash    *hasher        // of the keeper; nil without a digest
	under   *commit        // of the keeper: the one under way; nil if there is none
	durable chunks.Set     // chunks on stable storage
	recent  *chunks.Recent // chunks written since; guarded by mu
	retired []*os.File     // replaced ones that readers may still use

	mu         sync.Mutex    // guards the fields below
	users      int           // handles and the keeper: the last one closes the files
	failure    error         // why it is dead
	dirty      int64         // bytes that the map does not know of
	dirtySince time.Time     // the oldest of them
	matched    chan struct{} // closed while all is here and the digest matched
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
	return d.phase.Load() == whole || d.have.All(chunks.Of(off), chunks.Count(end))
}

// state tells how much is here.
func (d *data) state() State {
	switch {
	case d.phase.Load() == whole:
		return Cached
	case d.have.Len() > 0:
		return Partial
	}
	return Remote
}

// present returns how many bytes are here.
func (d *data) present() int64 {
	if d.phase.Load() == whole {
		return d.size
	}
	return d.have.Bytes(d.size)
}

// kickKeeper makes the keeper look again. It does not block.
func (d *data) kickKeeper() {
	select {
	case d.kick <- struct{}{}:
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
	d.disk.Lock()
	defer d.disk.Unlock()
	d.closeWriter()
	d.file.Load().Close()
	for _, f := range d.retired {
		f.Close()
	}
}

// closeWriter is called with disk held. A file that is open for writing cannot
// be executed (ETXTBSY), so it does not stay open longer than needed.
func (d *data) closeWriter() {
	if d.written != nil {
		d.written.Close()
		d.written = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recent.Close()
	d.recent = nil
}
