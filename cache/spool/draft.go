// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A Target is where a draft will be published, or where it stands as a file.
type Target struct {
	Remote   string       `json:"remote"`
	Ref      backends.Ref `json:"ref"`
	Replaces string       `json:"replaces,omitempty"` // as backends.Source.Replaces, or OnlySame
	Format   string       `json:"format,omitempty"`   // "sif", "simg", ""
	Async    bool         `json:"async,omitempty"`    // publish in the background, also after a restart
	InPlace  bool         `json:"in_place,omitempty"` // it began as an image, which is changed in place
	// File is the path, below the remote, of a file that is no image by its name, and is
	// published only when it gets another. Ref is not set then.
	File    string `json:"file,omitempty"`
	Follows string `json:"follows,omitempty"` // the draft whose publication it replaces: the same open file wrote both
}

// OnlySame as Target.Replaces: the name means an image that may not be replaced, and
// only the very bytes that it has are published, which changes nothing.
const OnlySame = "="

// Info is the journal's record of a draft.
type Info struct {
	ID       string    `json:"id"` // sorts by time of creation
	Target   Target    `json:"target"`
	State    State     `json:"state"`
	Size     int64     `json:"size"`             // bytes
	Digest   string    `json:"digest,omitempty"` // once sealed: "sha256:…"
	Stored   int64     `json:"stored"`           // bytes that the registry has acknowledged
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"`          // last write, or change of state
	Attempts int       `json:"attempts"`         // to publish
	Error    string    `json:"error,omitempty"`  // of the last try, or why the draft is incomplete
	ModTime  time.Time `json:"modtime,omitzero"` // set by SetAttr, else of the last write
	Mode     uint32    `json:"mode,omitempty"`   // set by SetAttr, else 0
	Version  string    `json:"-"`                // once published: as backends.Image.Version
	InDoubt  bool      `json:"-"`                // a registry was told to publish it, and did not answer
}

// Queued reports whether the draft is whole and waits to be published in the
// background: who copied it in was told that it is safe.
func (i Info) Queued() bool { return i.Target.Async && i.State.settled() }

// A Draft is a handle on one file of the spool, with full random access. Methods
// may be called from many goroutines at once, and give ErrClosed once this
// handle or the spool is closed. Handles on one draft share everything else.
// While a handle is open its draft is not discarded, unless the handle is idle. An idle
// handle takes no file descriptor.
//
// Errors of writing methods: ENOSPC, EDQUOT, EFBIG; fs.ErrInvalid for a negative
// offset or size; ErrInUse while the draft is being published (from Begin to End),
// after it was published, and when a registry on this disk has linked its data already.
type Draft struct {
	entry  *entry
	idle   bool // guarded by spool.mu
	kept   bool // open though idle; likewise
	closed atomic.Bool
}

// use calls fn with the data file.
func (d *Draft) use(fn func(*os.File) error) error {
	if err := d.live(); err != nil {
		return err
	}
	file, err := d.entry.acquire()
	if err != nil {
		return err
	}
	return errors.Join(fn(file), d.entry.letGo())
}

// Info returns the record as it is now, also of a draft that is gone.
func (d *Draft) Info() Info { return d.entry.info() }

// Size returns the size in bytes now.
func (d *Draft) Size() int64 { return d.entry.size.Load() }

// Retarget changes where the draft will be published (a rename). It is as
// durable as the state the draft is in. Errors: ErrInUse as for a write; the
// local disk's.
func (d *Draft) Retarget(target Target) error {
	if err := d.live(); err != nil {
		return err
	}
	e := d.entry
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.writable(); err != nil {
		return err
	}
	return e.change(func(r *record) {
		if target.Remote != r.Target.Remote || target.Ref != r.Target.Ref {
			r.Session, r.Stored = nil, 0 // it belongs to the other place
			e.stored.Store(0)
		}
		r.Target = target
	})
}

// SetAttr notes the time and mode that a copying tool sets; a zero modTime
// leaves the time as it is. A later write changes the time again. They are in the
// journal after the next Sync, Keep, Idle, Seal or Close: tools set them by the
// thousand.
func (d *Draft) SetAttr(modTime time.Time, mode uint32) error {
	if err := d.live(); err != nil {
		return err
	}
	d.entry.note(func(r *record) {
		if !modTime.IsZero() {
			r.ModTime = storable(modTime)
		}
		r.Mode = mode
	})
	return nil
}

// storable brings t into the years that JSON can hold: a copying tool is not
// refused for a strange time.
func storable(t time.Time) time.Time {
	first := time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)
	last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// ReadAt is io.ReaderAt.
func (d *Draft) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errNegative(off)
	}
	var n int
	var end error
	err := d.use(func(file *os.File) (err error) {
		if n, err = file.ReadAt(p, off); errors.Is(err, io.EOF) {
			end, err = io.EOF, nil
		}
		return diskError("read", err)
	})
	return n, cmp.Or(err, end)
}

// WriteAt is io.WriterAt. Writing to a sealed draft unseals it, durably, before
// the first byte is written.
func (d *Draft) WriteAt(p []byte, off int64) (int, error) {
	if err := d.live(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, errNegative(off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	err := d.use(func(file *os.File) (err error) {
		n, err = d.entry.write(file, p, off)
		return err
	})
	return n, err
}

// Truncate sets the size in bytes. The size that it has already changes nothing.
func (d *Draft) Truncate(size int64) error {
	if err := d.live(); err != nil {
		return err
	}
	if size < 0 {
		return errNegative(size)
	}
	return d.use(func(file *os.File) error { return d.entry.truncate(file, size) })
}

// Allocate reserves n bytes of the disk from off, as fallocate(2); without
// keepSize the file grows to hold them.
// Errors: also errors.ErrUnsupported where the disk cannot.
func (d *Draft) Allocate(off, n int64, keepSize bool) error {
	if err := d.live(); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return errNegative(min(off, n))
	}
	return d.use(func(file *os.File) error { return d.entry.allocate(file, off, n, keepSize) })
}

// Sync makes the data written so far and the journal durable, without sealing:
// what fsync(2) means for a file that somebody still has open.
func (d *Draft) Sync() error {
	err := d.use(func(file *os.File) error { return diskError("sync", file.Sync()) })
	if err != nil {
		return err
	}
	return d.entry.syncJournal()
}

// Keep notes that the file was closed under a name that is no image's: a broken
// one is Incomplete for that reason, any other is Kept.
// Errors: the local disk's.
func (d *Draft) Keep(broken error) error {
	if err := d.live(); err != nil {
		return err
	}
	e := d.entry
	e.data.Lock()
	defer e.data.Unlock()
	if state := e.rec.Load().State; state != Writing && state != Incomplete {
		return nil
	}
	return e.change(func(r *record) {
		r.State, r.Error = Kept, ""
		if broken != nil {
			r.State, r.Error = Incomplete, broken.Error()
		}
	})
}

// Idle lets the draft be discarded while this handle is open: whoever has it does
// not write. It takes no descriptor from then on, but while KeepOpen holds. Hold takes
// that back.
func (d *Draft) Idle() {
	if d.closed.Load() {
		return
	}
	d.entry.save()
	d.entry.spool.mu.Lock()
	file := d.letGoLocked(false)
	d.entry.spool.mu.Unlock()
	if err := closeData(file); err != nil {
		d.entry.spool.opts.Log.Warn("closing a draft", "draft", d.entry.id, "err", err)
	}
}

// letGoLocked makes the handle idle, and for good also lets go of what KeepOpen holds.
// It returns what is to be closed then, or nil. Call with spool.mu held.
func (d *Draft) letGoLocked(forGood bool) (last *os.File) {
	if !d.idle {
		d.idle = true
		d.entry.busy--
		last = d.entry.letGoLocked()
	}
	if forGood && d.kept {
		d.kept = false
		last = d.entry.letGoLocked()
	}
	return last
}

// Hold takes Idle back. Errors: fs.ErrNotExist if the draft was discarded; the local
// disk's.
func (d *Draft) Hold() error {
	d.entry.spool.mu.Lock()
	defer d.entry.spool.mu.Unlock()
	if d.entry.doomed.Load() {
		return errNoDraft(d.entry.id)
	}
	if !d.idle {
		return nil
	}
	_, err := d.entry.acquireLocked()
	if err == nil {
		d.idle = false
		d.entry.busy++
	}
	return err
}

// Share returns another handle on the draft, which the caller closes.
// Errors: fs.ErrNotExist if the draft was discarded; the local disk's.
func (d *Draft) Share() (*Draft, error) {
	if err := d.live(); err != nil {
		return nil, err
	}
	d.entry.spool.mu.Lock()
	d.entry.refs++
	d.entry.spool.mu.Unlock()
	return (&Draft{entry: d.entry, idle: true}).held()
}

// held is Hold for a new handle.
func (d *Draft) held() (*Draft, error) {
	if err := d.Hold(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// KeepOpen keeps the data file open, or no longer, also while the handle is idle: then
// it can be read whatever becomes of the draft. Errors: the local disk's.
func (d *Draft) KeepOpen(keep bool) error {
	if err := d.live(); err != nil {
		return err
	}
	d.entry.spool.mu.Lock()
	var file *os.File
	var err error
	switch {
	case keep && !d.kept:
		_, err = d.entry.acquireLocked()
		d.kept = err == nil
	case !keep && d.kept:
		d.kept = false
		file = d.entry.letGoLocked()
	}
	d.entry.spool.mu.Unlock()
	return errors.Join(err, closeData(file))
}

// Published reports whether the draft is gone because Publish has ended it.
func (d *Draft) Published() bool { return d.Gone() && d.entry.rec.Load().State == published }

// Gone reports whether the draft was removed, discarded or published.
func (d *Draft) Gone() bool { return d.entry.doomed.Load() }

// Close releases the handle; a second Close does nothing. When the last one of a
// draft in state Writing is closed, the draft becomes Incomplete.
func (d *Draft) Close() error {
	if d.closed.Swap(true) || d.entry.spool.closed.Load() {
		return nil
	}
	return d.entry.release(d)
}

func (d *Draft) live() error {
	if d.closed.Load() || d.entry.spool.closed.Load() {
		return ErrClosed
	}
	return nil
}

func errNegative(n int64) error { return fmt.Errorf("%w: offset or size %d", fs.ErrInvalid, n) }
