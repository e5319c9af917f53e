// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"
	"os"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// writable returns why the content cannot be changed now. The caller holds data.
func (e *entry) writable() error {
	switch state := e.rec.Load().State; {
	case state == published:
		return fmt.Errorf("%w: draft %s was published", ErrInUse, e.id)
	case state.underWay():
		return fmt.Errorf("%w: draft %s is being published", ErrInUse, e.id)
	}
	return nil
}

// begin readies the draft for a change of its content. The caller holds data.
func (e *entry) begin(file *os.File) error {
	if err := e.writable(); err != nil {
		return err
	}
	rec := e.rec.Load()
	if rec.State == Writing {
		return nil
	}
	if rec.State.settled() {
		info, err := file.Stat()
		if err != nil {
			return diskError("write", err)
		}
		if disk.Names(info) > 1 {
			return fmt.Errorf("%w: the data of draft %s is linked into a registry: copy the file anew", ErrInUse, e.id)
		}
	}
	e.format = ""
	return e.change(func(r *record) {
		r.State, r.Digest, r.Error = Writing, "", ""
		r.Session, r.Stored, r.Attempts = nil, 0, 0
		e.stored.Store(0)
	})
}

// written notes a change of the content. The caller holds data.
func (e *entry) written() {
	e.gen++
	e.touched.Store(time.Now().UnixNano())
	if rec := e.rec.Load(); !rec.ModTime.IsZero() {
		e.note(func(r *record) { r.ModTime = time.Time{} })
	}
}

func (e *entry) write(file *os.File, p []byte, off int64) (int, error) {
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.withRoom(func() error { return e.spool.headroom.take(int64(len(p))) }); err != nil {
		return 0, err
	}
	if err := e.begin(file); err != nil {
		return 0, err
	}
	if off < e.hashed {
		e.rehash()
	}
	var n int
	err := e.withRoom(func() error {
		more, err := file.WriteAt(p[n:], off+int64(n))
		n += more
		return err
	})
	if n > 0 {
		// A file copied from front to back is hashed on its way.
		if off == e.hashed {
			e.hash.Write(p[:n])
			e.hashed += int64(n)
		}
		e.size.Store(max(e.size.Load(), off+int64(n)))
		e.written()
	}
	return n, diskError("write", err)
}

// rehash forgets the running digest. The caller holds data.
func (e *entry) rehash() {
	e.hash.Reset()
	e.hashed = 0
}

func (e *entry) truncate(file *os.File, size int64) error {
	e.data.Lock()
	defer e.data.Unlock()
	if size == e.size.Load() {
		return nil
	}
	if err := e.begin(file); err != nil {
		return err
	}
	if size < e.hashed {
		e.rehash()
	}
	if err := file.Truncate(size); err != nil {
		return diskError("truncate", err)
	}
	e.size.Store(size)
	e.written()
	return nil
}

func (e *entry) allocate(file *os.File, off, n int64, keepSize bool) error {
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.withRoom(func() error { return e.spool.headroom.take(n) }); err != nil {
		return err
	}
	if err := e.begin(file); err != nil {
		return err
	}
	allocate := disk.Allocate
	if keepSize {
		allocate = disk.AllocateBeyond
	}
	if err := e.withRoom(func() error { return allocate(file, off, n) }); err != nil {
		return diskError("allocate", err)
	}
	if end := off + n; !keepSize && end > e.size.Load() {
		e.size.Store(end)
		e.written()
	}
	return nil
}

// clone makes file share the blocks of src.
func (e *entry) clone(file, src *os.File, size int64) error {
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.begin(file); err != nil {
		return err
	}
	if err := disk.Clone(file, src); err != nil {
		return err
	}
	if err := file.Truncate(size); err != nil { // src may have grown
		return err
	}
	e.rehash()
	e.size.Store(size)
	e.written()
	return nil
}
