// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"

	"github.com/sregfs/sregfs/cache/chunks"
)

// With fs-verity the kernel compares each page of a whole blob that it reads from
// the disk, also for who reads it through passthrough or mmap: a byte that
// changed underneath is EIO and not a wrong byte. It is told to once, after the
// digest matched; it then has hashes of its own, and refuses to write to the file
// for good (Documentation/filesystems/fsverity.rst).

// Verity reports whether whole blobs are guarded by fs-verity, and if they should
// be but cannot, why.
func (c *Cache) Verity() (on bool, why error) {
	if err := c.unguarded.Load(); err != nil {
		return false, *err
	}
	return c.opts.FSVerity, nil
}

// guard makes the kernel watch over the whole blob of key, and notes its hash of
// the file. Nobody may have the file open for writing.
func (c *Cache) guard(key Key) {
	if on, _ := c.Verity(); !on {
		return
	}
	f, info, err := openRegular(c.dir.file(key), os.O_RDONLY)
	if err != nil {
		return // gone, or to be found out when it is opened
	}
	defer f.Close()
	sum, err := verityOn(f, info)
	switch {
	case err == nil:
		c.noteGuard(key, info, sum)
	case errors.Is(err, errors.ErrUnsupported):
		if c.unguarded.CompareAndSwap(nil, &err) {
			c.opts.Log.Warn("no fs-verity for the cache: a disk that damages blobs is noticed only when they are verified",
				"dir", c.dir, "err", err)
		}
	default:
		c.opts.Log.Warn("a blob is not guarded by fs-verity", "key", key, "err", err)
	}
}

// verityOn switches fs-verity on for f and returns the kernel's hash of it.
func verityOn(f *os.File, info os.FileInfo) (sum string, err error) {
	if sum, err := measureVerity(f); err == nil {
		return sum, nil
	}
	// The kernel wants write permission on the file, though not an open one.
	if err := f.Chmod(info.Mode() | 0o200); err != nil {
		return "", err
	}
	err = enableVerity(f)
	if err := errors.Join(err, f.Chmod(info.Mode())); err != nil {
		return "", err
	}
	return measureVerity(f)
}

// noteGuard writes the kernel's hash beside the verdict on the same file.
func (c *Cache) noteGuard(key Key, info os.FileInfo, sum string) {
	it, err := c.take(c.ctx, key)
	if err != nil {
		return
	}
	defer it.release()
	path := c.dir.mapOf(key)
	m, err := readMap(path)
	now, errNow := os.Lstat(c.dir.file(key))
	if err != nil || errNow != nil || !os.SameFile(now, info) || m.Verified == 0 || m.Verity == sum {
		return
	}
	m.Verity = sum
	if err := m.Write(path); err != nil {
		c.opts.Log.Warn("cannot note that a blob is guarded", "key", key, "err", err)
	}
}

// guarded reports whether the kernel vouches that f is the file that was noted.
func guarded(m *chunks.Map, f *os.File) bool {
	if m.Verity == "" {
		return false
	}
	sum, err := measureVerity(f)
	return err == nil && sum == m.Verity
}
