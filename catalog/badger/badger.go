// SPDX-License-Identifier: Apache-2.0

// Package badger is the index.Store on the local disk, on the embedded
// database of that name.
//
// Badger is fast, and it is fragile: it dies by SIGBUS when the disk is full
// (dgraph-io/badger#1199, #1682, #1801), and damaged files make it forget
// silently, answer wrongly, or panic on goroutines of its own. This package keeps
// those faults inside, given that everything in the store can be found again:
//
//   - what a damaged file could falsify is checked: the files against an
//     inventory made at Close (inventory.go), the tables at Open (verify.go), each value by a checksum of ours (envelope.go);
//   - an index that fails a check, or at whose opening the process died, is moved
//     aside and an empty one takes its place (open.go);
//   - writes are refused while there is still enough room for what Badger does in
//     the background, with a ballast file in reserve (guard.go).
//
// It is not a place for anything that cannot be rebuilt. Start at [Open].
package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/sregfs/sregfs/catalog/index"
)

var _ index.Store = (*DB)(nil)

// ErrInUse says that another process, or another DB of this one, has the index.
var ErrInUse = errors.New("in use by another process")

// ErrNetwork says that a directory is on a network filesystem, where neither
// locks nor memory maps can be relied on. It is an fs.ErrInvalid.
var ErrNetwork = fmt.Errorf("%w: a network filesystem cannot hold an index", fs.ErrInvalid)

// Options tune a DB. The zero value has the defaults.
type Options struct {
	Log *slog.Logger // nil: none
	// Settled is called once after much was written, when nothing has been for
	// a while: Badger has let go of the memory it wrote with then, and the
	// program may want to give it back. It is called on a goroutine that Close
	// waits for. nil: nothing is called.
	Settled func()
	// Ballast is the size of the file that is given up when the disk is full, in
	// bytes; default 64 MiB, or a sixteenth of a smaller disk; negative: none.
	Ballast int64
}

// A DB is an open index. Besides the directory itself it uses names beside it
// that begin with the directory's: .lock, .probe, .opening, .inventory, .ballast, .bad-TIME.
//
// What Apply has acknowledged outlives the process, however it ends; the last
// of it may be lost when the machine loses power.
type DB struct {
	dir    string
	log    *slog.Logger
	lock   *os.File
	guard  *guard
	damage error // set by Open only

	reader  reader
	written atomic.Int64 // bytes, by Apply
	settled func()

	stop, stopped chan struct{} // end the goroutine that watches the disk; it has ended

	mu     sync.Mutex // guards the fields below
	idle   sync.Cond  // users became 0
	db     *badgerdb.DB
	users  int // calls and scans under way
	closed bool
	broken error // a panic or fault was caught: Badger may hold its locks for ever
}

// Damage tells why Open had to begin with an empty index where there had been
// one; nil if it had not.
func (d *DB) Damage() error { return d.damage }

// acquire returns Badger's handle, to be released after the call. It is nil while
// the disk is too full to open the index.
func (d *DB) acquire() (*badgerdb.DB, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, fs.ErrClosed
	case d.broken != nil:
		return nil, d.broken
	}
	d.users++
	return d.db, nil
}

func (d *DB) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users == 0 {
		d.idle.Broadcast()
	}
}

// closeTimeout is how long a tidy end may take. Badger writes its tables again and
// again until the disk takes them; what is in its log is there at the next Open.
const closeTimeout = 20 * time.Second

// Close implements index.Store. On a disk without room for a tidy end, or that
// takes no writes, it only makes sure that the next Open finds everything in
// Badger's log. It returns in any case; what Badger still tries then ends with the
// process, which must not open the index again.
func (d *DB) Close() error {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return nil
	}
	closed := make(chan error, 1)
	go func() { closed <- d.close() }()
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	select {
	case err := <-closed:
		return err
	case <-late.C:
		return fmt.Errorf("close index %s: not done after %v, does its disk take writes? It is left as after a crash", d.dir, closeTimeout)
	}
}

func (d *DB) close() error {
	d.mu.Lock()
	for d.users > 0 {
		d.idle.Wait()
	}
	d.mu.Unlock()

	close(d.stop)
	<-d.stopped
	return errors.Join(d.closeIndex(), unlock(d.lock))
}

// closeIndex is called when nobody else uses d any more.
func (d *DB) closeIndex() error {
	if d.db == nil || d.broken != nil {
		return d.broken
	}
	if err := contained(func() error { d.reader.renew(); return nil }); err != nil {
		d.log.Warn("end of a transaction", "err", err)
	}
	if err := d.guard.makeRoom(); err != nil {
		// Badger would die while it writes its tables. Its log has everything.
		d.log.Warn("index left as after a crash", "err", err)
		return portable(contained(d.db.Sync))
	}
	if err := contained(d.db.Close); err != nil {
		return fmt.Errorf("close index %s: %w", d.dir, portable(err))
	}
	if err := takeInventory(d.dir); err != nil {
		d.log.Info("no inventory of the index", "dir", d.dir, "err", err)
	}
	return nil
}

// fail notes that Badger panicked under a call. Its locks may be held for ever,
// and its files are not to be trusted: the next Open begins anew.
func (d *DB) fail(cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		d.broken = fmt.Errorf("index %s is damaged: %w", d.dir, syscall.EIO)
		err := mark(d.dir)
		d.log.Error("index is damaged: it will be empty after a restart", "dir", d.dir, "cause", cause, "mark", err)
	}
	return d.broken
}
