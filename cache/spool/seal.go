// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"io"
	"os"
)

// A Check judges whether r is a whole image, and of which format.
type Check func(r io.ReaderAt, size int64) (format string, err error)

// Seal makes the draft ready to publish: it is checked (check may be nil), the digest is
// computed, data and journal are made durable, in this order. A draft that is sealed
// already is left alone, but checked if an earlier process sealed it. Of several calls
// at once one does the work and the others wait for it.
//
// Errors: what check returns (the draft is then Incomplete, or Failed if it was sealed);
// ctx's; ErrInUse if the draft was written to meanwhile; the local disk's.
func (d *Draft) Seal(ctx context.Context, check Check) (Info, error) {
	if err := d.live(); err != nil {
		return d.Info(), err
	}
	e := d.entry
	select {
	case e.sealing <- struct{}{}:
		defer func() { <-e.sealing }()
	case <-ctx.Done():
		return d.Info(), ctx.Err()
	}
	if e.sealed() && (check == nil || e.content.checked()) {
		return d.Info(), nil
	}
	err := d.use(func(file *os.File) error { return e.seal(ctx, file, check) })
	return d.Info(), err
}

func (e *entry) seal(ctx context.Context, file *os.File, check Check) error {
	snap, err := e.content.snapshot()
	if err != nil {
		return err
	}
	if check != nil {
		if snap.format, err = check(io.NewSectionReader(file, 0, snap.size), snap.size); err != nil {
			return e.reject(snap.gen, err)
		}
	}
	if e.sealed() {
		return e.content.accept(&snap)
	}
	// Writers go on meanwhile; what they do is seen by the count of changes.
	if err := snap.finish(ctx, file); err != nil {
		return e.content.unlessWritten(snap.gen, err)
	}
	if err := file.Sync(); err != nil {
		return diskError("seal", err)
	}
	return e.content.accept(&snap)
}

// reject notes why the content of that generation is no image.
func (e *entry) reject(gen uint64, cause error) error {
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	if e.content.gen != gen {
		return e.content.errWritten()
	}
	note := e.end
	if !e.sealed() {
		note = func(cause error) error {
			return e.remember(func(r *record) { r.State, r.Error = Incomplete, cause.Error() })
		}
	}
	if err := note(cause); err != nil {
		e.spool.opts.Log.Warn("cannot note that a draft is incomplete", "draft", e.id, "err", err)
	}
	return cause
}
