// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// A content is the bytes of a draft, and the digest of those that were written in order.
type content struct {
	*journal
	headroom *headroom
	reclaim  func() bool // gives room back, or reports that there is none to give

	mu     sync.Mutex // serialises changes of the content and tries to publish it, and guards the fields below
	gen    uint64     // counts changes
	hash   hash.Hash  // of the first hashed bytes
	hashed int64
	format string // of the image, as Seal found it; "" if nobody looked since the last change
}

// begin readies the draft for a change of its content. The caller holds mu.
func (c *content) begin(file *os.File) error {
	if err := c.writable(); err != nil {
		return err
	}
	rec := c.rec.Load()
	if rec.State == Writing {
		return nil
	}
	if rec.State.settled() {
		info, err := file.Stat()
		if err != nil {
			return diskError("write", err)
		}
		if disk.Names(info) > 1 {
			return fmt.Errorf("%w: the data of draft %s is linked into a registry: copy the file anew", ErrInUse, rec.ID)
		}
	}
	c.format = ""
	return c.change(func(r *record) {
		r.State, r.Digest, r.Error = Writing, "", ""
		r.Session, r.Stored, r.Attempts = nil, 0, 0
		c.stored.Store(0)
	})
}

// written notes a change of the content. The caller holds mu.
func (c *content) written() {
	c.gen++
	c.touched.Store(time.Now().UnixNano())
	if rec := c.rec.Load(); !rec.ModTime.IsZero() {
		c.note(func(r *record) { r.ModTime = time.Time{} })
	}
}

func (c *content) write(file *os.File, p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.withRoom(func() error { return c.headroom.take(int64(len(p))) }); err != nil {
		return 0, err
	}
	if err := c.begin(file); err != nil {
		return 0, err
	}
	if off < c.hashed {
		c.rehash()
	}
	var n int
	err := c.withRoom(func() error {
		more, err := file.WriteAt(p[n:], off+int64(n))
		n += more
		return err
	})
	if n > 0 {
		// A file copied from front to back is hashed on its way.
		if off == c.hashed {
			c.hash.Write(p[:n])
			c.hashed += int64(n)
		}
		c.size.Store(max(c.size.Load(), off+int64(n)))
		c.written()
	}
	return n, diskError("write", err)
}

// rehash forgets the running digest. The caller holds mu.
func (c *content) rehash() {
	c.hash.Reset()
	c.hashed = 0
}

func (c *content) truncate(file *os.File, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size == c.size.Load() {
		return nil
	}
	if err := c.begin(file); err != nil {
		return err
	}
	if size < c.hashed {
		c.rehash()
	}
	if err := file.Truncate(size); err != nil {
		return diskError("truncate", err)
	}
	c.size.Store(size)
	c.written()
	return nil
}

func (c *content) allocate(file *os.File, off, n int64, how Allocation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.withRoom(func() error { return c.headroom.take(n) }); err != nil {
		return err
	}
	if err := c.begin(file); err != nil {
		return err
	}
	allocate := disk.Allocate
	if how == KeepSize {
		allocate = disk.AllocateBeyond
	}
	if err := c.withRoom(func() error { return allocate(file, off, n) }); err != nil {
		return diskError("allocate", err)
	}
	if end := off + n; how == Grow && end > c.size.Load() {
		c.size.Store(end)
		c.written()
	}
	return nil
}

// clone makes file share the blocks of src.
func (c *content) clone(file, src *os.File, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(file); err != nil {
		return err
	}
	if err := disk.Clone(file, src); err != nil {
		return err
	}
	if err := file.Truncate(size); err != nil { // src may have grown
		return err
	}
	c.rehash()
	c.size.Store(size)
	c.written()
	return nil
}

// withRoom does write, and again while it fails for want of room and something can
// be given back.
func (c *content) withRoom(write func() error) error {
	err := write()
	for (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && c.reclaim() {
		err = write()
	}
	return err
}

// checked reports whether this process has checked the content.
func (c *content) checked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.format != ""
}

// accept notes that a snapshot is whole, and seals the draft unless it is sealed.
func (c *content) accept(snap *snapshot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != snap.gen {
		return c.errWritten()
	}
	c.format = snap.format
	if c.sealed() {
		return nil
	}
	err := c.change(func(r *record) {
		r.State, r.Digest, r.Error = Sealed, "sha256:"+hex.EncodeToString(snap.hash.Sum(nil)), ""
	})
	if err == nil {
		c.hash, c.hashed = snap.hash, snap.size
	}
	return err
}

// unlessWritten prefers a write meanwhile as the explanation of err.
func (c *content) unlessWritten(gen uint64, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != gen {
		return c.errWritten()
	}
	return err
}

func (c *content) errWritten() error {
	return fmt.Errorf("%w: draft %s was written to while it was being sealed", ErrInUse, c.rec.Load().ID)
}

// A snapshot is the content at one moment: its size, and a digest under way.
type snapshot struct {
	gen    uint64
	size   int64
	format string // as checked
	hash   hash.Hash
	hashed int64
}

func (c *content) snapshot() (snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state, err := c.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return snapshot{}, diskError("seal", err)
	}
	s := snapshot{gen: c.gen, size: c.size.Load(), hash: sha256.New(), hashed: c.hashed}
	if err := s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return snapshot{}, diskError("seal", err)
	}
	return s, nil
}

// finish hashes what was not hashed while it was written.
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
