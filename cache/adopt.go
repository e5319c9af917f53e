// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
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
	for {
		again, err := c.adopt(path, key, info)
		if !again {
			return err
		}
	}
}

// adopt is Adopt after its checks. again is true if what was open was of no use
// and is gone now.
func (c *Cache) adopt(path string, key Key, info os.FileInfo) (again bool, err error) {
	it, err := c.take(c.ctx, key)
	if err != nil {
		return false, err
	}
	defer it.release()
	if c.here(key, info.Size()) {
		return false, localError("adopt", os.Remove(path))
	}
	d, _ := it.live()
	if d == nil {
		return false, localError("adopt", it.adopt(path, info))
	}
	d.disk.Lock()
	defer d.disk.Unlock()
	if d.phase.Load() == whole {
		// Its name was deleted: it is back now, for the next one to open it.
		return false, localError("adopt", it.adopt(path, info))
	}
	f, err := openExisting(path, os.O_RDONLY)
	if err != nil {
		return false, localError("adopt", err)
	}
	if err := d.turnTo(f, info.Size()); err != nil {
		c.opts.Log.Error("a download differs from the image", "key", key, "err", err)
		d.bury(err)
		return true, nil
	}
	if err = it.adopt(path, info); err == nil {
		err = d.adopted()
	}
	if err != nil {
		d.bury(localError("adopt", err)) // its readers have a file without a name
	}
	return false, localError("adopt", err)
}

// turnTo makes readers go on with f, which has the right bytes, after comparing
// what they were given before: it may be in the kernel's memory, and in half a
// copy. Until the blob counts as whole the last bytes that nobody had are held
// back, so no copy ends meanwhile. Call with disk held, in the partial phase.
//
// Errors: backends.ErrCorrupt.
func (d *data) turnTo(f *os.File, size int64) error {
	old := d.file.Swap(f)
	d.retired = append(d.retired, old)
	if size != d.size {
		return fmt.Errorf("%w: the registry says %d bytes, the image has %d", backends.ErrCorrupt, d.size, size)
	}
	for c := range chunks(d.size) {
		if !d.given.chunks.has(c) {
			continue
		}
		off, end, ok := d.brought(old, c)
		if !ok || !sameBytes(old, f, off, end) {
			return fmt.Errorf("%w: bytes were given out that differ from the image", backends.ErrCorrupt)
		}
	}
	return nil
}

// brought returns the range of a chunk that readers may have got from old; ok is
// false if that cannot be told.
func (d *data) brought(old *os.File, c int64) (off, end int64, ok bool) {
	off, end = c*chunkSize, min((c+1)*chunkSize, d.size)
	d.mu.Lock()
	f, here := d.owner[c], d.have.has(c)
	if f != nil && !here {
		end = min(end, max(off, f.pos))
	}
	d.mu.Unlock()
	if f != nil || here {
		return off, end, true
	}
	d.loose.mu.Lock()
	loose := len(d.loose.chunks) > 0
	d.loose.mu.Unlock()
	start, _, some := nextData(old, off, d.size)
	return off, off, !loose && (!some || start >= end)
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
	it.closeSpare()
	if err := dir.drop(it.key); err != nil {
		return err
	}
	dst := dir.file(it.key)
	if err := move(path, dst, info); err != nil {
		return err
	}
	if err := os.Chmod(dst, wholeMode); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(dst)); err != nil {
		return err
	}
	info, err := os.Lstat(dst)
	if err != nil {
		return err
	}
	verdict(dir, it.key, string(it.key), info, it.cache.opts.Log)
	it.mu.Lock()
	if it.given != nil {
		it.given.epoch.Store(it.cache.epochs.Add(1))
	}
	it.mu.Unlock()
	it.wasVerified(info, true)
	return nil
}

// move renames the file at path to dst, which does not exist, or copies it. The
// copy is durable, and then path is removed.
func move(path, dst string, info os.FileInfo) error {
	// A file with a second name belongs to somebody else too.
	if !linked(info) && os.Rename(path, dst) == nil {
		return nil
	}
	src, err := openExisting(path, os.O_RDONLY)
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
	if cloneFile(dst, src) != nil {
		if _, err := io.Copy(dst, src); err != nil {
			return err
		}
	}
	return fdatasync(dst)
}

// adopted goes on with the file that is in the blob's place now. Call with disk
// held, in the partial phase.
func (d *data) adopted() error {
	f, _, err := openRegular(d.item.cache.dir.file(d.item.key), os.O_RDONLY)
	if err != nil {
		return err
	}
	d.retired = append(d.retired, d.file.Swap(f))
	d.turnWhole(func() {})
	d.cancel()
	d.kickKeeper()
	return nil
}
