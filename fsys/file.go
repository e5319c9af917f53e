// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// A File is one handle on a Draft. The caller closes it.
type File struct {
	d       *Draft
	write   bool
	opener  uint32 // process that opened it
	closing bool   // guarded by d.mu: its opener has closed it and nobody wrote since: it will go soon
}

// Open opens a draft. Whoever opens it while another process writes to it shares
// it, as with any file. Who would truncate what another process writes under an
// image's name gets a draft of its own instead, by looking up the name again.
//
// Errors: ErrRetry for that reason; and once the draft is published or removed: its
// name means something else now, and what that is can be opened; ErrBusy if it is on
// its way; the local disk's; ctx's.
func (d *Draft) Open(ctx context.Context, who Caller, write, truncate bool) (*File, error) {
	if write && truncate && d.startsOver(who) {
		return nil, d.startOver(ctx, who)
	}
	for deadline := time.Now().Add(patience); ; {
		file, err := d.open(who, write, truncate)
		switch {
		case write && errors.Is(err, ErrRetry):
			return nil, d.openInstead(ctx, who, truncate)
		case !errors.Is(err, ErrBusy) || !time.Now().Before(deadline):
			return file, err
		}
		if err := d.awaitIdle(ctx, nil, lookAgain); err != nil {
			return nil, err
		}
	}
}

// startOver makes a draft beside this one, which the caller finds at the next look.
// It returns ErrRetry.
func (d *Draft) startOver(ctx context.Context, who Caller) error {
	in, name := d.stands()
	if _, err := d.fs.start(ctx, beginning{in: in, name: name, who: who, replaces: d}); err != nil {
		return err
	}
	return ErrRetry
}

// openInstead readies what the name means now for the caller, who asks once more and
// not twice: the kernel gives up then. It returns ErrRetry.
func (d *Draft) openInstead(ctx context.Context, who Caller, truncate bool) error {
	in, name := d.stands()
	node, err := in.Lookup(ctx, name, who)
	switch n := node.(type) {
	case *Image:
		return n.OpenWrite(ctx, who, truncate)
	case *Draft:
		if err == nil && truncate && n.startsOver(who) {
			return n.startOver(ctx, who)
		}
	}
	return ErrRetry
}

// stands returns the directory and the name of the draft.
func (d *Draft) stands() (in *Dir, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Dir{fs: d.fs, remote: d.place.remote, collection: d.place.collection, tool: d.place.tool}, d.name
}

// startsOver reports whether truncating the draft would take it from others.
func (d *Draft) startsOver(who Caller) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over() || d.place.temporary {
		return false
	}
	for h := range d.writers {
		if h.opener != who.Process {
			return true
		}
	}
	return d.accepted() || len(d.turn) > 0
}

func (d *Draft) open(who Caller, write, truncate bool) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// What was published is still a file to those who have it open, and open it again
	// through /proc/self/fd.
	if d.data == nil || d.gone || d.published() && write && (truncate || len(d.writers) == 0) {
		return nil, ErrRetry
	}
	h := &File{d: d, write: write, opener: who.Process}
	if write {
		if d.accepted() || len(d.turn) > 0 {
			return nil, fmt.Errorf("%s: %w", d.name, ErrBusy)
		}
		if truncate && d.data.Size() > 0 {
			if err := d.truncate(0); err != nil {
				return nil, err
			}
		}
		delete(d.claims, who.Thread)
		if len(d.writers) == 0 {
			switch err := d.data.Hold(); {
			case errors.Is(err, fs.ErrNotExist):
				return nil, ErrRetry
			case err != nil:
				return nil, err
			}
			d.idle = make(chan struct{})
		}
		d.writers[h] = struct{}{}
	}
	d.opened = true
	// Who has it open reads on when it is removed.
	if err := d.data.KeepOpen(); err != nil { // not for a writer, who holds it
		return nil, err
	}
	d.handles++
	return h, nil
}

// closing needs mu. It reports whether all who write have closed the file, though
// the kernel has not told us yet that it was the last time.
func (d *Draft) closing() bool {
	for h := range d.writers {
		if !h.closing {
			return false
		}
	}
	return len(d.writers) > 0
}

// ReadAt is io.ReaderAt. It goes on after the file is published or removed.
func (h *File) ReadAt(p []byte, off int64) (int, error) {
	for {
		data := h.data()
		if data == nil {
			return 0, ErrRetry
		}
		n, err := data.ReadAt(p, off)
		if !errors.Is(err, spool.ErrClosed) || data == h.data() {
			return n, err
		}
	}
}

// Size returns the file's size in bytes.
func (h *File) Size() int64 { return h.d.Attr().Size }

func (h *File) data() *spool.Draft {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.data
}

// WriteAt is io.WriterAt. After an error the file is never published, unless it
// is truncated to nothing and written again: some programs do not look.
//
// Nobody can tell which closing of a file is the last one: loop devices, forks and
// dup share it. So what is written after a Flush that published is taken, and
// published by the next one, or by Close.
//
// Errors: fs.ErrPermission on a handle for reading; the local disk's; ctx's.
func (h *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	var n int
	other := h.d.checkHead(ctx, p, off)
	err := h.change(ctx, func() (err error) {
		if n, err = 0, other; err == nil {
			n, err = h.d.data.WriteAt(p, off)
		}
		return err
	})
	return n, err
}

// headSize is how much of an image is compared while it is copied: two SIFs differ
// there, in their UUIDs and times.
const headSize = 4 << 10

// checkHead refuses bytes that are not those of the image which the file may not
// replace. Closing the file compares all of it; but who copies ten gigabytes to a name
// that is taken is told at once.
//
// Errors: backends.ErrNotAllowed.
func (d *Draft) checkHead(ctx context.Context, p []byte, off int64) error {
	d.mu.Lock()
	image, temporary := d.same, d.place.temporary
	d.mu.Unlock()
	if image == nil || temporary || off >= headSize {
		return nil
	}
	blob, err := image.open(ctx)
	if err != nil {
		return nil //nolint:nilerr // closing finds out
	}
	defer blob.Close() //nolint:errcheck // only read
	p = p[:min(int64(len(p)), headSize-off)]
	old := make([]byte, len(p))
	n, err := blob.ReadAtContext(ctx, old, off)
	if err != nil && !errors.Is(err, io.EOF) || bytes.Equal(old[:n], p) {
		return nil //nolint:nilerr // as above
	}
	return uploads.Taken(image.remote, image.img.Ref)
}

// Allocate reserves n bytes from off.
// A failure changes nothing. Errors: as WriteAt.
func (h *File) Allocate(ctx context.Context, off, n int64, how spool.Allocation) error {
	err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer h.d.mu.Unlock()
	if err := h.d.data.Allocate(off, n, how); err != nil {
		return err
	}
	h.changed()
	return nil
}

// change does write. The spool is local and its writes are short. A failure spoils
// the file.
func (h *File) change(ctx context.Context, write func() error) error {
	d := h.d
	err := h.lock(ctx)
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if h.write && ctx.Err() == nil && !errors.Is(err, ErrRetry) {
			d.broken, d.err = true, err
		}
		return err
	}
	defer d.mu.Unlock()
	h.changed()
	if err := write(); err != nil {
		d.broken, d.err = true, err
		return err
	}
	if !d.broken {
		d.err = nil
	}
	return nil
}

// lock takes the draft's mu when its data may be changed. Whatever it returns but
// nil, mu is not held.
func (h *File) lock(ctx context.Context) error {
	if !h.write {
		return fmt.Errorf("%w: opened for reading", fs.ErrPermission)
	}
	if err := h.d.lockData(ctx); err != nil {
		return err
	}
	if h.d.data == nil {
		h.d.mu.Unlock()
		return ErrRetry
	}
	return nil
}

// changed needs mu.
func (h *File) changed() { h.d.dirty, h.closing, h.d.attr.ModTime = true, false, time.Now() }

// Flush publishes the file if it was written, is an image by its name, and who
// is the process that opened it: other processes inherit descriptors, and close
// them before the file is whole. For the same reason all who have it open for
// writing must have closed it. A file without a byte is left alone, because shells
// close a descriptor once before anything is written (it is an error, though not one
// that stays, where an image would be truncated that may not be); and an image that is changed
// in place while a container has its overlay mounted, because that is no state to
// give to anybody.
//
// An error stays with the file until it is written again: Flush and a rename give
// it again.
//
// Errors: backends.ErrCorrupt if the file is not a whole image; context.Canceled,
// after which the draft is in the journal; those of catalog.Publish.
func (h *File) Flush(ctx context.Context, who Caller) error {
	if !h.write {
		return nil
	}
	d := h.d
	d.mu.Lock()
	err, stranger := d.err, who.Process != 0 && h.opener != 0 && who.Process != h.opener
	h.closing, d.flushed = h.closing || !stranger, time.Now()
	closed, data := !stranger && d.closing(), d.data
	skip, stays := !closed || !d.due(), closed && d.place.temporary && !d.over()
	if image := d.same; err == nil && closed && image != nil && !d.place.temporary && !d.over() && data.Size() == 0 {
		err = uploads.Taken(image.remote, image.img.Ref) // to whoever only wanted to truncate it
	}
	d.mu.Unlock()
	if stays {
		d.keep(data, err)
	}
	if err != nil || skip {
		return err
	}
	if data.Info().Target.InPlace && uploads.Mounted(data, data.Size()) {
		return nil
	}
	return d.publish(ctx)
}

// Sync makes the file durable here, and publishes nothing: that is what closing
// does. Errors: that of a write before; the local disk's.
func (h *File) Sync() error {
	d := h.d
	d.mu.Lock()
	data, err := d.data, d.err
	if !d.broken {
		err = nil
	}
	over := d.over()
	d.mu.Unlock()
	if err != nil || over || data == nil {
		return err
	}
	return data.Sync()
}

// Close ends the handle. The last one for writing publishes what no Flush has:
// there was none from the opener if a server wrote for somebody else (NFS), the
// descriptor was passed on, or a loop device wrote last. Nobody waits for that
// error: it is logged, and in the journal.
func (h *File) Close(ctx context.Context) {
	d := h.d
	if h.write {
		d.endWriting(ctx, h)
	}
	d.mu.Lock()
	if d.handles--; d.handles == 0 && d.data != nil {
		if err := d.data.LetClose(); err != nil && !errors.Is(err, spool.ErrClosed) {
			d.fs.opts.Log.Warn("closing a draft", "file", d.name, "err", err)
		}
	}
	// What remains under a temporary name, or was accepted, is still a file. What is on
	// its way to another name belongs to who renames it.
	keep := !d.over() && (d.place.temporary || d.accepted() || len(d.turn) > 0)
	d.mu.Unlock()
	if !keep {
		d.release()
	}
}

// endWriting is done one after the other: of several handles that are closed side
// by side one is the last.
func (d *Draft) endWriting(ctx context.Context, h *File) {
	_ = d.lock(context.WithoutCancel(ctx))
	defer d.unlock()
	d.mu.Lock()
	delete(d.writers, h)
	last := len(d.writers) == 0
	due := last && d.due()
	d.mu.Unlock()
	if !last {
		return
	}
	if due {
		if err := d.publishLocked(ctx); err != nil {
			d.fs.opts.Log.Warn("not published; its data is kept", "file", d.currentName(), "err", err)
		}
	}
	d.rest()
	d.wake()
}

// wake tells those who wait to write that the last writer is done.
func (d *Draft) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.writers) == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// due needs mu. It reports whether there is something to publish.
func (d *Draft) due() bool {
	return d.dirty && d.err == nil && !d.over() && !d.accepted() && !d.place.temporary && d.data.Size() > 0
}

// over needs mu. It reports whether the name means something else now.
func (d *Draft) over() bool { return d.gone || d.published() || d.lapsed() }

// rest settles what nobody writes any more. A file with a temporary name, or one
// that was accepted, stays in the tree; the others were not published, and are taken
// from it. Their data stays in the journal, if anybody wrote any.
func (d *Draft) rest() {
	d.mu.Lock()
	over, temporary, accepted, data := d.over(), d.place.temporary, d.accepted(), d.data
	nothing := !d.dirty || data.Size() == 0 || d.broken
	d.gone = d.gone || !over && !temporary && !accepted && !nothing
	broken := d.err
	d.mu.Unlock()
	if broken != nil && nothing && !over && !temporary {
		d.fs.opts.Log.Warn("dropped a copy of which a part could not be written", "file", d.currentName(), "err", broken)
	}
	switch {
	case over:
	case temporary:
		d.keep(data, broken)
		data.Idle()
	case accepted:
		data.Idle()
	case nothing:
		d.remove() //nolint:errcheck // nothing that anybody can use: the writer was told
	default:
		d.fs.forget(d)
	}
}

// keep notes that a file with a temporary name was closed.
func (d *Draft) keep(data *spool.Draft, broken error) {
	if broken == nil && data.Info().State == spool.Kept {
		return // by Flush, and nobody wrote since
	}
	if err := data.Keep(cut(data, broken)); err != nil {
		d.fs.opts.Log.Warn("a file that is kept cannot be noted", "file", d.currentName(), "err", err)
	}
}

// cut returns why a file is not what was meant: a write failed, or it is a part of an
// image. Tools keep other things under temporary names, too.
func cut(data *spool.Draft, broken error) error {
	if broken != nil {
		return broken
	}
	if _, err := uploads.CompleteImage(data, data.Size()); errors.Is(err, backends.ErrCorrupt) {
		return err
	}
	return nil
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
