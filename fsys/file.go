// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/catalog"
)

// A File is one handle on a Draft. The caller closes it.
type File struct {
	d     *Draft
	write bool
}

// Open opens a draft. Only one process at a time has it open for writing; another
// waits a moment for it.
//
// Errors: ErrRetry once it is published, or removed: its name means something
// else now; ErrBusy; the local disk's; ctx's.
func (d *Draft) Open(ctx context.Context, who Caller, write, truncate bool) (*File, error) {
	file, err := d.open(who, write, truncate)
	if errors.Is(err, ErrBusy) {
		if err := d.wait(ctx); err != nil {
			return nil, err
		}
		return d.open(who, write, truncate)
	}
	return file, err
}

func (d *Draft) open(who Caller, write, truncate bool) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.data == nil || d.over() {
		return nil, ErrRetry
	}
	if write {
		if err := d.mayWrite(who); err != nil {
			return nil, err
		}
		if truncate && d.data.Size() > 0 {
			if err := d.truncate(0); err != nil {
				return nil, err
			}
		}
		d.opener, d.claimedAt = who.Process, time.Time{}
		if d.writers++; d.idle == nil {
			d.idle = make(chan struct{})
		}
	}
	d.handles++
	return &File{d: d, write: write}, nil
}

// mayWrite needs mu.
func (d *Draft) mayWrite(who Caller) error {
	switch {
	case d.accepted, len(d.turn) > 0:
		return fmt.Errorf("%s: %w", d.name, ErrBusy)
	case d.writers > 0 && d.opener != who.Process:
		return fmt.Errorf("%s: %w", d.name, ErrBusy)
	case d.claimed() && d.claimant != who.Thread:
		return fmt.Errorf("%s: %w", d.name, ErrBusy)
	}
	return nil
}

// ReadAt is io.ReaderAt. It goes on after the file is published or removed.
func (h *File) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	data := h.d.data
	h.d.mu.Unlock()
	if data == nil {
		return 0, ErrRetry
	}
	return data.ReadAt(p, off)
}

// WriteAt is io.WriterAt. After an error the file is never published, unless it
// is truncated to nothing and written again: some programs do not look.
//
// Errors: fs.ErrPermission on a handle for reading; ErrBusy while the file is
// published, ErrRetry afterwards; the local disk's.
func (h *File) WriteAt(p []byte, off int64) (int, error) {
	var n int
	err := h.change(func() (err error) {
		n, err = h.d.data.WriteAt(p, off)
		return err
	})
	return n, err
}

// Allocate reserves n bytes from off, and grows the file to them unless keepSize.
// Errors: as WriteAt.
func (h *File) Allocate(off, n int64, keepSize bool) error {
	return h.change(func() error { return h.d.data.Allocate(off, n, keepSize) })
}

// change does write with mu held. The spool is local and its writes are short.
func (h *File) change(write func() error) error {
	d := h.d
	if !h.write {
		return fmt.Errorf("%w: opened for reading", fs.ErrPermission)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.data == nil || d.published:
		return ErrRetry
	case len(d.turn) > 0, d.accepted:
		return fmt.Errorf("%s: %w", d.name, ErrBusy)
	}
	d.dirty, d.closing, d.attr.ModTime = true, false, time.Now()
	if err := write(); err != nil {
		d.broken, d.err = true, err
		return err
	}
	if !d.broken {
		d.err = nil
	}
	return nil
}

// Flush publishes the file if it was written, is an image by its name, and who
// is the process that opened it: other processes inherit descriptors, and close
// them before the file is whole. A file without a byte is left alone, because
// shells close a descriptor once before anything is written.
//
// An error stays with the file until it is written again: Flush, Sync and a
// rename give it again.
//
// Errors: backends.ErrCorrupt if the file is not a whole image; context.Canceled,
// after which the draft is in the journal; those of catalog.Publish.
func (h *File) Flush(ctx context.Context, who Caller) error {
	if !h.write {
		return nil
	}
	d := h.d
	d.mu.Lock()
	err, stranger := d.err, who.Process != 0 && d.opener != 0 && who.Process != d.opener
	d.closing = !stranger
	skip := d.place.temporary || d.gone || d.published || !d.dirty || stranger || d.data.Size() == 0
	d.mu.Unlock()
	if err != nil || skip {
		return err
	}
	return d.publish(ctx)
}

// Sync publishes as Flush does, whoever calls it, if the file is a whole image;
// if it is not yet, and where its name is temporary, it makes the data durable
// here, and closing decides.
//
// Errors: those of Flush.
func (h *File) Sync(ctx context.Context) error {
	if !h.write {
		return nil
	}
	d := h.d
	d.mu.Lock()
	err, data, local := d.err, d.data, d.place.temporary || d.gone || !d.dirty
	published := d.published
	d.mu.Unlock()
	if err != nil || published {
		return err
	}
	if local || catalog.CompleteImage(data, data.Size()) != nil {
		return data.Sync()
	}
	return d.publish(ctx)
}

// Close ends the handle. The last one for writing publishes what no Flush has:
// there was none from the opener if a server wrote for somebody else (NFS), or
// the descriptor was passed on. Nobody waits for that error: it is logged, and
// in the journal.
func (h *File) Close(ctx context.Context) {
	d := h.d
	if h.write && d.needsPublish() {
		if err := d.publish(ctx); err != nil {
			d.fs.opts.Log.Warn("not published", "file", d.name, "error", err)
		}
	}
	d.mu.Lock()
	if d.handles--; d.handles == 0 {
		d.closed = time.Now()
	}
	lastWriter := false
	if h.write {
		d.writers--
		lastWriter = d.writers == 0
	}
	// What remains under a temporary name, or was accepted, is still a file.
	keep := !d.over() && (d.place.temporary || d.accepted)
	d.mu.Unlock()
	if !keep && lastWriter {
		d.abandon()
	}
	if lastWriter {
		d.wake()
	}
	if !keep {
		d.release()
	}
}

// wake tells those who wait to write that the last writer is done.
func (d *Draft) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writers == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// needsPublish reports whether closing the handle leaves work undone.
func (d *Draft) needsPublish() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writers == 1 && d.dirty && d.err == nil && !d.over() && !d.accepted &&
		!d.place.temporary && d.data.Size() > 0
}

// over needs mu. It reports whether the name means something else now.
func (d *Draft) over() bool { return d.gone || d.published }

// abandon takes a file that will not be published from the tree. Its data stays
// in the journal, if anybody wrote any.
func (d *Draft) abandon() {
	d.mu.Lock()
	over, nothing := d.over(), !d.dirty || d.data.Size() == 0
	d.mu.Unlock()
	switch {
	case over:
	case nothing:
		d.remove() //nolint:errcheck // nothing was written: nothing is lost
	default:
		d.fs.forget(d)
		d.mu.Lock()
		d.gone = true
		d.mu.Unlock()
	}
}

// release gives the data back to the spool, with the last handle.
func (d *Draft) release() {
	d.mu.Lock()
	data := d.data
	if d.handles > 0 || data == nil {
		d.mu.Unlock()
		return
	}
	d.attr.Size, d.data = data.Size(), nil
	d.mu.Unlock()
	if err := data.Close(); err != nil {
		d.fs.opts.Log.Warn("closing a draft", "file", d.name, "error", err)
	}
}
