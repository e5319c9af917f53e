// SPDX-License-Identifier: Apache-2.0

package cache

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

// Seal makes the draft ready to publish: complete (which may be nil) judges
// whether it is a whole image, the digest is computed, data and journal are made
// durable, in this order. A draft that is sealed already is left alone. Of
// several calls at once one does the work and the others wait for it.
//
// Errors: what complete returns (the draft is then Incomplete); ctx's; ErrInUse
// if somebody wrote to the draft meanwhile; the local disk's.
func (d *Draft) Seal(ctx context.Context, complete func(r io.ReaderAt, size int64) error) (DraftInfo, error) {
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
	if e.rec.Load().State.settled() && !e.dirty.Load() {
		return d.Info(), nil
	}
	err := d.use(func(file *os.File) error { return e.seal(ctx, file, complete) })
	return d.Info(), err
}

func (e *entry) seal(ctx context.Context, file *os.File, complete func(r io.ReaderAt, size int64) error) error {
	snap, err := e.snapshot()
	if err != nil {
		return err
	}
	if complete != nil {
		if err := complete(io.NewSectionReader(file, 0, snap.size), snap.size); err != nil {
			return e.reject(snap.gen, err)
		}
	}
	// Writers go on meanwhile; what they do is seen by the count of changes.
	if err := snap.finish(ctx, file); err != nil {
		return e.unlessWritten(snap.gen, err)
	}
	if err := file.Sync(); err != nil {
		return spoolError("seal", err)
	}
	e.data.Lock()
	defer e.data.Unlock()
	if e.gen != snap.gen || e.moved {
		return e.errWritten()
	}
	err = e.change(func(r *record) {
		r.State, r.Digest, r.Error = Sealed, "sha256:"+hex.EncodeToString(snap.hash.Sum(nil)), ""
	})
	if err != nil {
		return err
	}
	e.hash, e.hashed = snap.hash, snap.size
	e.dirty.Store(false)
	return nil
}

// reject notes why the content of that generation is no image.
func (e *entry) reject(gen uint64, cause error) error {
	e.data.Lock()
	defer e.data.Unlock()
	if e.gen != gen {
		return e.errWritten()
	}
	err := e.remember(func(r *record) { r.State, r.Error = Incomplete, cause.Error() })
	if err != nil {
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
	hash   hash.Hash
	hashed int64
}

func (e *entry) snapshot() (snapshot, error) {
	e.data.Lock()
	defer e.data.Unlock()
	state, err := e.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return snapshot{}, spoolError("seal", err)
	}
	s := snapshot{gen: e.gen, size: e.size.Load(), hash: sha256.New(), hashed: e.hashed}
	if err := s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return snapshot{}, spoolError("seal", err)
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
			return spoolError("seal", fmt.Errorf("%d bytes are missing at the end: %w", s.size-s.hashed, err))
		}
		s.hash.Write(buf[:n])
		s.hashed += int64(n)
	}
	return nil
}
