// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Bytes are the content of a draft, for its writer.
type Bytes struct{ *handle }

// ReadAt is io.ReaderAt.
func (b Bytes) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errNegative(off)
	}
	var n int
	var end error
	err := b.use(func(file *os.File) (err error) {
		if n, err = file.ReadAt(p, off); errors.Is(err, io.EOF) {
			end, err = io.EOF, nil
		}
		return diskError("read", err)
	})
	return n, cmp.Or(err, end)
}

// WriteAt is io.WriterAt. Writing to a sealed draft unseals it, durably, before
// the first byte is written.
func (b Bytes) WriteAt(p []byte, off int64) (int, error) {
	if err := b.live(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, errNegative(off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	err := b.use(func(file *os.File) (err error) {
		n, err = b.entry.content.write(file, p, off)
		return err
	})
	return n, err
}

// Truncate sets the size in bytes. The size that it has already changes nothing.
func (b Bytes) Truncate(size int64) error {
	if err := b.live(); err != nil {
		return err
	}
	if size < 0 {
		return errNegative(size)
	}
	return b.use(func(file *os.File) error { return b.entry.content.truncate(file, size) })
}

// An Allocation is what reserving room does to the size of a file.
type Allocation int

// The kinds of fallocate(2).
const (
	Grow     Allocation = iota // it grows to hold what was reserved
	KeepSize                   // it stays
)

// Allocate reserves n bytes of the disk from off, as fallocate(2).
// Errors: also errors.ErrUnsupported where the disk cannot.
func (b Bytes) Allocate(off, n int64, how Allocation) error {
	if err := b.live(); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return errNegative(min(off, n))
	}
	return b.use(func(file *os.File) error { return b.entry.content.allocate(file, off, n, how) })
}

// Sync makes the data written so far and the journal durable, without sealing:
// what fsync(2) means for a file that is still open.
func (b Bytes) Sync() error {
	err := b.use(func(file *os.File) error { return diskError("sync", file.Sync()) })
	if err != nil {
		return err
	}
	return b.entry.sync()
}

// Fill makes the first size bytes of src the content of an empty draft. Where src
// is a file or a draft on the same disk, they share its blocks if the disk can.
//
// Errors: those of WriteAt and src; ctx's.
func (b Bytes) Fill(ctx context.Context, src io.ReaderAt, size int64) error {
	if err := b.live(); err != nil {
		return err
	}
	if b.use(func(to *os.File) error { return b.share(to, src, size) }) == nil {
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
		if _, err := b.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// share is clone where src is a file or a draft.
func (b Bytes) share(to *os.File, src io.ReaderAt, size int64) error {
	switch src := src.(type) {
	case *os.File:
		return b.entry.content.clone(to, src, size)
	case interface {
		use(func(*os.File) error) error
	}:
		return src.use(func(from *os.File) error { return b.entry.content.clone(to, from, size) })
	}
	return errors.ErrUnsupported
}

func errNegative(n int64) error { return fmt.Errorf("%w: offset or size %d", fs.ErrInvalid, n) }
