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

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Open opens a draft. A process that opens it while another one writes to it shares it,
// as with any file. With Truncate, a file that another process writes under an image's
// name is not truncated: the caller gets a draft of its own by looking up the name again.
//
// Errors: ErrRetry in that case, and once the draft is published or removed, because its
// name means something else then; ErrBusy while it is being published; the local disk's;
// ctx's.
func (d *Draft) Open(ctx context.Context, who Caller, flags Flags) (*File, error) {
	write, truncate := flags.has(Write), flags.has(Truncate)
	if write && truncate && d.needsOwnDraft(who) {
		return nil, d.startOwnDraft(ctx, who)
	}
	for deadline := time.Now().Add(writerWait); ; {
		file, err := d.open(who, write, truncate)
		switch {
		case write && errors.Is(err, ErrRetry):
			return nil, d.openCurrent(ctx, who, flags)
		case !errors.Is(err, ErrBusy) || !time.Now().Before(deadline):
			return file, err
		}
		if err := d.awaitIdle(ctx, nil, pollInterval); err != nil {
			return nil, err
		}
	}
}

// startOwnDraft makes a draft beside this one, which the caller's next lookup finds. It
// returns ErrRetry.
func (d *Draft) startOwnDraft(ctx context.Context, who Caller) error {
	in, name := d.position()
	if _, err := d.fs.startDraft(ctx, newFile{in: in, name: name, who: who, replaces: d}); err != nil {
		return err
	}
	return ErrRetry
}

// openCurrent prepares what the name means now, so that the caller's next attempt
// succeeds: the kernel retries an open once, not twice. It returns ErrRetry.
func (d *Draft) openCurrent(ctx context.Context, who Caller, flags Flags) error {
	in, name := d.position()
	node, err := in.Lookup(ctx, name, who)
	switch n := node.(type) {
	case *Image:
		return n.OpenWrite(ctx, who, flags)
	case *Draft:
		if err == nil && flags.has(Truncate) && n.needsOwnDraft(who) {
			return n.startOwnDraft(ctx, who)
		}
	}
	return ErrRetry
}

// needsOwnDraft reports whether truncating the draft would destroy what others write, or
// what is being published.
func (d *Draft) needsOwnDraft(who Caller) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended() || d.loc.temporary {
		return false
	}
	for h := range d.writers {
		if h.opener != who.Process {
			return true
		}
	}
	return d.accepted() || len(d.exclusive) > 0
}

func (d *Draft) open(who Caller, write, truncate bool) (*File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A published draft is still a file to processes that have it open, and that open it
	// again through /proc/self/fd.
	if d.data == nil || d.removed || d.published() && write && (truncate || len(d.writers) == 0) {
		return nil, ErrRetry
	}
	h := &File{d: d, write: write, opener: who.Process}
	if write {
		if d.accepted() || len(d.exclusive) > 0 {
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
	// Open handles can read after the file was removed.
	if err := d.data.KeepOpen(); err != nil { // cannot fail for a writer, who holds it
		return nil, err
	}
	d.handles++
	return h, nil
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

// WriteAt is io.WriterAt. After an error the file is not published unless it is truncated
// to nothing and written again: some programs do not check the results of writes.
//
// Which close of a file is the last one cannot be known: loop devices, forks and dup share
// it. So bytes that are written after a Flush that published are accepted, and published
// by the next Flush or by Close.
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

// headSize is how much of an image is compared while it is copied. Two SIFs differ in
// their first bytes, which hold a UUID and times.
const headSize = 4 << 10

// checkHead refuses bytes that differ from those of the image which the file may not
// replace. Closing the file compares all bytes; this check lets a copy of ten gigabytes
// to a taken name fail at its first write.
//
// Errors: backends.ErrNotAllowed.
func (d *Draft) checkHead(ctx context.Context, p []byte, off int64) error {
	d.mu.Lock()
	image, temporary := d.mustMatch, d.loc.temporary
	d.mu.Unlock()
	if image == nil || temporary || off >= headSize {
		return nil
	}
	blob, err := image.open(ctx)
	if err != nil {
		return nil //nolint:nilerr // closing compares all bytes
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

// Allocate reserves n bytes from off. A failure changes nothing. Errors: as WriteAt.
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

// change calls write. The spool is local and its writes are short. After a failure the
// file is broken.
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

// lock takes the draft's mu when its data may be changed. After an error mu is not held.
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

// Flush publishes the file if it was written and its name is an image's, unless
//
//   - the caller is not the process that opened it: child processes inherit descriptors,
//     and close them before the file is whole;
//   - another handle for writing was not closed yet;
//   - the file is empty: shells close a descriptor once before anything is written. It is
//     an error where an image would be truncated that may not be, but does not stay;
//   - the image is changed in place and a container has its overlay mounted: the file
//     system in it is not consistent then.
//
// An error stays with the file until it is written again: later Flushes and renames
// return it, too.
//
// Errors: backends.ErrCorrupt if the file is not a whole image; context.Canceled,
// after which the draft is in the journal; those of uploads.Publish.
func (h *File) Flush(ctx context.Context, who Caller) error {
	if !h.write {
		return nil
	}
	d := h.d
	d.mu.Lock()
	err, stranger := d.err, who.Process != 0 && h.opener != 0 && who.Process != h.opener
	h.closing, d.flushed = h.closing || !stranger, time.Now()
	closed, data := !stranger && d.closing(), d.data
	skip, stays := !closed || !d.due(), closed && d.loc.temporary && !d.ended()
	if image := d.mustMatch; err == nil && closed && image != nil && !d.loc.temporary && !d.ended() && data.Size() == 0 {
		err = uploads.Taken(image.remote, image.img.Ref) // nothing but a truncation was asked for
	}
	d.mu.Unlock()
	if stays {
		d.markKept(data, err)
	}
	if err != nil || skip {
		return err
	}
	if data.Info().Target.InPlace && uploads.Mounted(data, data.Size()) {
		return nil
	}
	return d.publish(ctx)
}

// Sync makes the file durable here. It publishes nothing: closing does.
// Errors: that of an earlier write; the local disk's.
func (h *File) Sync() error {
	d := h.d
	d.mu.Lock()
	data, err := d.data, d.err
	if !d.broken {
		err = nil
	}
	over := d.ended()
	d.mu.Unlock()
	if err != nil || over || data == nil {
		return err
	}
	return data.Sync()
}

// Close ends the handle. The last one for writing publishes what no Flush has published:
// the opener sent none if a server wrote for somebody else (NFS), if the descriptor was
// passed to another process, or if a loop device wrote last. No caller can receive the
// error, so it is logged, and in the journal.
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
	// A file with a temporary name, or one that is queued, stays open. One that is being
	// renamed belongs to the rename.
	keep := !d.ended() && (d.loc.temporary || d.accepted() || len(d.exclusive) > 0)
	d.mu.Unlock()
	if !keep {
		d.release()
	}
}

// endWriting ends a handle for writing. It holds the lock, so that exactly one of several
// handles that are closed at once is the last one.
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
			d.fs.opts.Log.Warn("not published; its data is kept", "file", d.fileName(), "err", err)
		}
	}
	d.lastWriterDone()
	d.signalIdle()
}

// lastWriterDone decides what becomes of a draft after its last close. A file with a
// temporary name, or one that is queued, stays in the tree. Any other was not published
// and is taken out; its data, if there is any, stays in the journal.
func (d *Draft) lastWriterDone() {
	d.mu.Lock()
	over, temporary, accepted, data := d.ended(), d.loc.temporary, d.accepted(), d.data
	nothing := !d.dirty || data.Size() == 0 || d.broken
	d.removed = d.removed || !over && !temporary && !accepted && !nothing
	broken := d.err
	d.mu.Unlock()
	if broken != nil && nothing && !over && !temporary {
		d.fs.opts.Log.Warn("dropped a copy of which a part could not be written", "file", d.fileName(), "err", broken)
	}
	switch {
	case over:
	case temporary:
		d.markKept(data, broken)
		data.Idle()
	case accepted:
		data.Idle()
	case nothing:
		d.remove() //nolint:errcheck // it holds nothing of use, and the writer got an error
	default:
		d.fs.removeDraft(d)
	}
}

// markKept notes in the journal that a file with a temporary name was closed.
func (d *Draft) markKept(data *spool.Draft, broken error) {
	if broken == nil && data.Info().State == spool.Kept {
		return // by Flush, and nobody wrote since
	}
	if err := data.Keep(damage(data, broken)); err != nil {
		d.fs.opts.Log.Warn("a file that is kept cannot be noted", "file", d.fileName(), "err", err)
	}
}
