// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// Adopt takes over the file at path as the whole and verified blob of a digest
// that the caller has computed: by rename, or by clone or copy where path is on
// another disk or has another name too. The blob may be here already, and open:
// its readers go on with what was adopted, but get backends.ErrCorrupt if what
// they were given before was something else. Afterwards nothing is at path.
//
// Errors: fs.ErrInvalid if digest is no "sha256:…" or the file not size bytes
// long; those of the local disk.
func (c *Cache) Adopt(path, digest string, size int64) error {
	key := Key(digest)
	if !key.valid() || KeyOf("", backends.Image{Digest: digest}) != key {
		return fmt.Errorf("%w: cannot adopt a file under %q", fs.ErrInvalid, digest)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return localError("adopt", err)
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return fmt.Errorf("%w: %s is not a file of %d bytes", fs.ErrInvalid, path, size)
	}
	it, err := c.take(c.ctx, key)
	if err != nil {
		return err
	}
	defer it.release()
	if c.here(key, info.Size()) {
		return localError("adopt", os.Remove(path))
	}
	return localError("adopt", it.replace(path, size, nil, func() error { return it.adopt(path, info) }))
}

// replace calls place, which puts a whole and verified file in the blob's place.
// Whoever reads a part, other than but, goes on with that file, or gets
// backends.ErrCorrupt if what they were given before was something else. Call on a
// main item, with busy held. Errors: place's.
func (it *item) replace(path string, size int64, but *item, place func() error) error {
	var turned []*data
	for _, p := range it.family() {
		if p == but || p == it {
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
			it.cache.opts.Log.Error("a download differs from the image", "key", it.key, "sources", d.sourceNames(), "err", err)
			d.bury(err)
			continue
		}
		turned = append(turned, d)
	}
	err := place()
	for _, d := range turned {
		if errTurned := cmp.Or(err, d.adopted()); errTurned != nil {
			d.bury(localError("adopt", errTurned)) // its readers have a file without a name
		}
	}
	return err
}

// turnTo makes readers go on with the file at path, which has the right bytes, after comparing
// what they were given before: it may be in the kernel's memory, and in half a
// copy. Until the blob counts as whole the last bytes that nobody had are held
// back, so no copy ends meanwhile. Call with disk held, in the partial phase.
//
// Errors: backends.ErrCorrupt; those of the local disk.
func (d *data) turnTo(path string, size int64) error {
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return localError("adopt", err)
	}
	old := d.stored.replace(f)
	if size != d.size {
		return fmt.Errorf("%w: the registry says %d bytes, the image has %d", backends.ErrCorrupt, d.size, size)
	}
	for c := range chunks.Count(d.size) {
		if !d.check.served.chunks.Has(c) {
			continue
		}
		off, end, ok := d.brought(old, c)
		if !ok || !sameBytes(old, f, off, end) {
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

// here reports whether the blob is whole, verified and in its place.
func (c *Cache) here(key Key, size int64) bool {
	path, ok := c.Path(key)
	if !ok {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// adopt puts the file in the blob's place. Call with busy held.
func (it *item) adopt(path string, info os.FileInfo) error {
	dir := it.cache.dir
	if err := dir.room(it.key); err != nil {
		return err
	}
	it.closeIdle()
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
	verdict(dir, it.key, string(it.key), info, it.cache.opts.Log)
	it.wasVerified(info)
	return nil
}

// move renames the file at path to dst, which does not exist, or copies it. The
// copy is durable, and then path is removed.
func move(path, dst string, info os.FileInfo) error {
	// A file with a second name belongs to somebody else too.
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

// adopted goes on with the file that is in the blob's place now. Call with disk
// held, in the partial phase, after turnTo.
func (d *data) adopted() error {
	f, _, err := openRegular(d.item.cache.dir.file(d.item.key), os.O_RDONLY)
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
