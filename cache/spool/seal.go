// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
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
	if e.sealed() && (check == nil || e.checked()) {
		return d.Info(), nil
	}
	err := d.use(func(file *os.File) error { return e.seal(ctx, file, check) })
	return d.Info(), err
}

// checked reports whether this process has checked the content.
func (e *entry) checked() bool {
	e.data.Lock()
	defer e.data.Unlock()
	return e.format != ""
}

func (e *entry) seal(ctx context.Context, file *os.File, check Check) error {
	snap, err := e.snapshot()
	if err != nil {
		return err
	}
	if check != nil {
		if snap.format, err = check(io.NewSectionReader(file, 0, snap.size), snap.size); err != nil {
			return e.reject(snap.gen, err)
		}
	}
	if e.sealed() {
		return e.accept(&snap)
	}
	// Writers go on meanwhile; what they do is seen by the count of changes.
	if err := snap.finish(ctx, file); err != nil {
		return e.unlessWritten(snap.gen, err)
	}
	if err := file.Sync(); err != nil {
		return diskError("seal", err)
	}
	return e.accept(&snap)
}

// accept notes that a snapshot is whole, and seals the draft unless it is sealed.
func (e *entry) accept(snap *snapshot) error {
	e.data.Lock()
	defer e.data.Unlock()
	if e.gen != snap.gen {
		return e.errWritten()
	}
	e.format = snap.format
	if e.sealed() {
		return nil
	}
	err := e.change(func(r *record) {
		r.State, r.Digest, r.Error = Sealed, "sha256:"+hex.EncodeToString(snap.hash.Sum(nil)), ""
	})
	if err == nil {
		e.hash, e.hashed = snap.hash, snap.size
	}
	return err
}

// reject notes why the content of that generation is no image.
func (e *entry) reject(gen uint64, cause error) error {
	e.data.Lock()
	defer e.data.Unlock()
	if e.gen != gen {
		return e.errWritten()
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

// unlessWritten prefers a write meanwhile as the explanation of err.
func (e *entry) unlessWritten(gen uint64, err error) error {
	e.data.Lock()
	defer e.data.Unlock()
	if e.gen != gen {
		return e.errWritten()
	}
	return err
}

func (e *entry) errWritten() error {
	return fmt.Errorf("%w: draft %s was written to while it was being sealed", ErrInUse, e.id)
}

// A snapshot is the content at one moment: its size, and a digest under way.
type snapshot struct {
	gen    uint64
	size   int64
	format string // as checked
	hash   hash.Hash
	hashed int64
}

func (e *entry) snapshot() (snapshot, error) {
	e.data.Lock()
	defer e.data.Unlock()
	state, err := e.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return snapshot{}, diskError("seal", err)
	}
	s := snapshot{gen: e.gen, size: e.size.Load(), hash: sha256.New(), hashed: e.hashed}
	if err := s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return snapshot{}, diskError("seal", err)
	}
	return s, nil
}

// finish hashes what has not passed by in order.
func (s *snapshot) finish(ctx context.Context, file *os.File) error {
	buf := make([]byte, 1<<20)
	for s.hashed < s.size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), s.size-s.hashed)], s.hashed)
		if n == 0 {
			return diskError("seal", fmt.Errorf("%d bytes are missing at the end: %w", s.size-s.hashed, err))
		}
		s.hash.Write(buf[:n])
		s.hashed += int64(n)
	}
	return nil
}
