// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"errors"
	"io"
	"os"
)

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

// fork holds data, so that d is published either before, and its version is
// known, or after: then its publisher finds the new draft and tells it.
func (d *Draft) fork() (*Draft, error) {
	e := d.entry
	e.data.Lock()
	defer e.data.Unlock()
	rec := e.rec.Load()
	target := rec.Target
	target.InPlace, target.Follows = true, e.id
	if rec.State == published && target.Replaces != OnlySame {
		target.Replaces = rec.Version
	}
	return e.spool.Create(target)
}

// Fill makes the first size bytes of src the content of an empty draft. Where src
// is a file or a draft on the same disk, they share its blocks if the disk can.
//
// Errors: those of WriteAt and src; ctx's.
func (d *Draft) Fill(ctx context.Context, src io.ReaderAt, size int64) error {
	if err := d.live(); err != nil {
		return err
	}
	if d.use(func(to *os.File) error { return d.entry.share(to, src, size) }) == nil {
		return nil
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 && err != nil {
			return err
		}
		if _, err := d.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// share is clone where src is a file or a draft.
func (e *entry) share(to *os.File, src io.ReaderAt, size int64) error {
	switch src := src.(type) {
	case *os.File:
		return e.clone(to, src, size)
	case *Draft:
		return src.use(func(from *os.File) error { return e.clone(to, from, size) })
	}
	return errors.ErrUnsupported
}
