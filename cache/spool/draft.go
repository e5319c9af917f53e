// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"
)

// A Draft is a handle on one file of the spool, with full random access. Methods
// may be called from many goroutines at once, and give ErrClosed once this
// handle or the spool is closed. Handles on one draft share everything else.
// While a handle is open its draft is not discarded, unless the handle is idle. An idle
// handle takes no file descriptor.
//
// Errors of writing methods: ENOSPC, EDQUOT, EFBIG; fs.ErrInvalid for a negative
// offset or size; ErrInUse while the draft is being published (from Begin to End),
// after it was published, and when a registry on this disk has linked its data already.
//
// A writer needs its [Bytes], a publisher its [Upload].
type Draft struct {
	*handle
	Bytes
	Upload
}

func newDraft(e *entry, idle bool) *Draft {
	h := &handle{entry: e, idle: idle}
	return &Draft{h, Bytes{h}, Upload{h}}
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
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
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

// storable brings t into the years that JSON can hold, so that a strange time does not make
// a copy fail.
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

// Keep notes that the file was closed under a name that is no image's: a broken
// one is Incomplete for that reason, any other is Kept.
// Errors: the local disk's.
func (d *Draft) Keep(broken error) error {
	if err := d.live(); err != nil {
		return err
	}
	e := d.entry
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
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

// Idle lets the draft be discarded while this handle is open: its owner does
// not write. From then on it takes no descriptor, except after KeepOpen. Hold takes Idle
// back.
func (d *Draft) Idle() {
	if d.closed.Load() {
		return
	}
	d.entry.save()
	d.entry.spool.mu.Lock()
	file := d.releaseLocked(false)
	d.entry.spool.mu.Unlock()
	if err := closeData(file); err != nil {
		d.entry.spool.opts.Log.Warn("closing a draft", "draft", d.entry.id, "err", err)
	}
}

// releaseLocked makes the handle idle, and for good also lets go of what KeepOpen holds.
// It returns what is to be closed then, or nil. Call with spool.mu held.
func (d *Draft) releaseLocked(forGood bool) (last *os.File) {
	if !d.idle {
		d.idle = true
		d.entry.busy--
		last = d.entry.file.release()
	}
	if forGood && d.kept {
		d.kept = false
		last = cmp.Or(last, d.entry.file.release())
	}
	return last
}

// Hold takes Idle back. Errors: fs.ErrNotExist if the draft was discarded; the local
// disk's.
func (d *Draft) Hold() error {
	d.entry.spool.mu.Lock()
	defer d.entry.spool.mu.Unlock()
	if d.entry.removed.Load() {
		return errNoDraft(d.entry.id)
	}
	if !d.idle {
		return nil
	}
	_, err := d.entry.file.acquire()
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
	return newDraft(d.entry, true).held()
}

// held is Hold for a new handle.
func (d *Draft) held() (*Draft, error) {
	if err := d.Hold(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// KeepOpen keeps the data file open also while the handle is idle: then it can be read
// whatever becomes of the draft. LetClose takes that back.
// Errors: the local disk's.
func (d *Draft) KeepOpen() error {
	if err := d.live(); err != nil {
		return err
	}
	d.entry.spool.mu.Lock()
	defer d.entry.spool.mu.Unlock()
	if d.kept {
		return nil
	}
	_, err := d.entry.file.acquire()
	d.kept = err == nil
	return err
}

// LetClose takes KeepOpen back. Errors: the local disk's.
func (d *Draft) LetClose() error {
	if err := d.live(); err != nil {
		return err
	}
	d.entry.spool.mu.Lock()
	var last *os.File
	if d.kept {
		d.kept = false
		last = d.entry.file.release()
	}
	d.entry.spool.mu.Unlock()
	return closeData(last)
}

// Published reports whether the draft is gone because Publish has ended it.
func (d *Draft) Published() bool { return d.Gone() && d.entry.rec.Load().State == published }

// Gone reports whether the draft was removed, discarded or published.
func (d *Draft) Gone() bool { return d.entry.removed.Load() }

// Close releases the handle; a second Close does nothing. When the last one of a
// draft in state Writing is closed, the draft becomes Incomplete.
func (d *Draft) Close() error {
	if d.closed.Swap(true) || d.entry.spool.closed.Load() {
		return nil
	}
	e := d.entry
	e.spool.mu.Lock()
	file := d.releaseLocked(true)
	e.refs--
	last := e.refs == 0
	e.spool.mu.Unlock()
	err := closeData(file)
	if !last {
		return err
	}
	e.save()
	err = errors.Join(err, e.abandon())
	if e.removed.Load() {
		err = errors.Join(err, e.drop())
	}
	return err
}

// Supersede drops the older drafts for the same name which this one makes useless:
// those that were cut at once, and once this one is sealed those that were not
// published either. What is open stays.
func (d *Draft) Supersede() {
	by := d.entry
	for _, old := range by.spool.Drafts() {
		if by.useless(old, by.sealed()) && by.spool.Discard(old.ID) == nil {
			by.spool.opts.Log.Info("dropped an older copy that was not published", "draft", old.ID,
				"image", old.Target.Ref.String(), "bytes", old.Size, "newer", by.id)
		}
	}
}

// Fork starts a draft with the content of d, that is to replace what d was
// published as, or will be: its writer goes on there. d may be
// published, fail or be gone meanwhile. The caller closes the handle.
//
// Errors: those of Spool.Create and Fill.
func (d *Draft) Fork(ctx context.Context) (*Draft, error) {
	if err := d.live(); err != nil {
		return nil, err
	}
	next, err := d.fork()
	if err != nil {
		return nil, err
	}
	if err := next.Fill(ctx, d, d.Size()); err != nil {
		return nil, errors.Join(err, next.Remove(), next.Close())
	}
	return next, nil
}

// fork holds content.mu, so that d is published either before, when its version is known, or
// after: then its publisher finds the new draft and tells it the version.
func (d *Draft) fork() (*Draft, error) {
	e := d.entry
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	rec := e.rec.Load()
	target := rec.Target
	target.InPlace, target.Follows = true, e.id
	if rec.State == published && target.Replaces != OnlySame {
		target.Replaces = rec.Version
	}
	return e.spool.Create(target)
}

// Remove drops the draft and its data. It is gone for everyone at once, and
// durably; handles that are open go on with a file that has no name. After an
// error it cannot be opened any more, and Close of the last handle tries again.
func (d *Draft) Remove() error {
	if err := d.live(); err != nil {
		return err
	}
	return d.entry.drop()
}
