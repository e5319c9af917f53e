// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// here reports whether the blob is whole, verified and in its place.
func (f *family) here(size int64) bool {
	it := f.main
	if it.info().State != Cached {
		return false
	}
	info, err := os.Lstat(it.dir.file(it.key))
	return err == nil && backends.OnlyOurs(info) && info.Mode().IsRegular() && info.Size() == size
}

// replace calls place, which puts a whole and verified file in the blob's place.
// Readers of a part, other than but, go on with that file, or get backends.ErrCorrupt if
// they were given other bytes before. Call with the lock held. Errors: place's.
func (f *family) replace(path string, size int64, but *item, place func() error) error {
	var turned []*data
	for _, p := range f.members() {
		if p == but || p == f.main {
			continue
		}
		d, _ := p.live()
		if d == nil {
			p.mu.Lock()
			_ = p.erase()
			p.mu.Unlock()
			continue
		}
		d.stored.disk.Lock()
		defer d.stored.disk.Unlock()
		if d.phase.Load() != partial {
			continue
		}
		if err := d.turnTo(path, size); err != nil {
			p.log.Error("a download differs from the image", "key", p.key, "sources", d.sourceNames(), "err", err)
			p.bury(d, err)
			continue
		}
		turned = append(turned, d)
	}
	err := place()
	for _, d := range turned {
		if errTurned := cmp.Or(err, d.adopted()); errTurned != nil {
			d.item.bury(d, localError("adopt", errTurned)) // its readers have a file without a name
		}
	}
	return err
}

// turnTo makes readers go on with the file at path, which has the right bytes, after
// comparing the bytes that they were given before: those may be in the kernel's memory, and
// in half a copy. Until the blob counts as whole, the last bytes that no reader had are held
// back, so no copy ends meanwhile. Call with disk held, in the partial phase.
//
// Errors: backends.ErrCorrupt; those of the local disk.
func (d *data) turnTo(path string, size int64) error {
	next, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return localError("adopt", err)
	}
	old := d.stored.replace(next)
	if size != d.size {
		return fmt.Errorf("%w: the registry says %d bytes, the image has %d", backends.ErrCorrupt, d.size, size)
	}
	for c := range chunks.Count(d.size) {
		if !d.check.served.chunks.Has(c) {
			continue
		}
		off, end, ok := d.brought(old, c)
		if !ok || !sameBytes(old, next, off, end) {
			return fmt.Errorf("%w: bytes were given out that differ from the image", backends.ErrCorrupt)
		}
	}
	d.check.served.verified.Store(true)
	return nil
}

// brought returns the range of a chunk that readers may have got from old; ok is
// false if that cannot be told.
func (d *data) brought(old *os.File, c int64) (off, end int64, ok bool) {
	off, end = c*chunks.Size, min((c+1)*chunks.Size, d.size)
	pos, coming := d.download.Written(c)
	here := d.stored.have.Has(c) // after Written: a chunk that was coming may be here by now
	if coming && !here {
		end = min(end, max(off, pos))
	}
	if coming || here {
		return off, end, true
	}
	start, _, some := nextData(old, off, d.size)
	return off, off, !d.download.InMemory() && (!some || start >= end)
}

// sameBytes reports whether a and b are equal in [off, end).
func sameBytes(a, b *os.File, off, end int64) bool {
	x, y := make([]byte, end-off), make([]byte, end-off)
	_, errA := a.ReadAt(x, off)
	_, errB := b.ReadAt(y, off)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// adopted goes on with the file that is in the blob's place now. Call with disk
// held, in the partial phase, after turnTo.
func (d *data) adopted() error {
	f, _, err := openRegular(d.item.dir.file(d.item.key), os.O_RDONLY)
	if err != nil {
		return err
	}
	d.stored.replace(f)
	d.turnWhole()
	d.cancel()
	d.notifyCommitter()
	it := d.item
	it.mu.Lock()
	defer it.mu.Unlock()
	it.setOnDisk(0)
	return it.slot().drop()
}

// adopt puts the file in the blob's place. Call with the lock held.
func (f *family) adopt(path string, info os.FileInfo) error {
	it, dir := f.main, f.main.dir
	if err := dir.room(it.key); err != nil {
		return err
	}
	f.closeIdle()
	if err := it.slot().drop(); err != nil {
		return err
	}
	dst := dir.file(it.key)
	if err := move(path, dst, info); err != nil {
		return err
	}
	if err := os.Chmod(dst, wholeMode); err != nil {
		return err
	}
	if err := disk.SyncDir(filepath.Dir(dst)); err != nil {
		return err
	}
	info, err := os.Lstat(dst)
	if err != nil {
		return err
	}
	verdict(dir, it.key, string(it.key), info, it.log)
	it.arrived(info)
	return nil
}

// move renames the file at path to dst, which does not exist, or copies it. The
// copy is durable, and then path is removed.
func move(path, dst string, info os.FileInfo) error {
	// A file with a second name may be in use under that.
	if disk.Names(info) <= 1 && os.Rename(path, dst) == nil {
		return nil
	}
	src, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp := dst + streamSuffix
	if err := copyFile(tmp, src); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(tmp)))
	}
	if err := os.Rename(tmp, dst); err != nil {
		return err
	}
	return os.Remove(path)
}

// copyFile makes a durable copy of src at path, sharing its blocks if it can.
func copyFile(path string, src *os.File) (err error) {
	dst, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, partMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if disk.Clone(dst, src) != nil {
		if _, err := io.Copy(dst, src); err != nil {
			return err
		}
	}
	return fdatasync(dst)
}
