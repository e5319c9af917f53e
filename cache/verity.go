// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"sync/atomic"
)

// With fs-verity the kernel compares each page of a whole blob that it reads from
// the disk, also for reads through passthrough or mmap: a byte that changed underneath is
// EIO and not a wrong byte. It is switched on once, after the digest matched; the kernel
// then has hashes of its own, and refuses to write to the file for good (Documentation/filesystems/fsverity.rst).

// A verity makes the kernel guard whole blobs, where it can.
type verity struct {
	*common
	table       *table
	unsupported atomic.Pointer[error] // why fs-verity is not to be had
}

// on reports whether blobs are guarded, and if they should be but cannot, why.
func (v *verity) on() (on bool, why error) {
	if err := v.unsupported.Load(); err != nil {
		return false, *err
	}
	return v.opts.FSVerity, nil
}

// guard makes the kernel watch over the whole blob of key, and notes its hash of
// the file. Nobody may have the file open for writing.
func (v *verity) guard(key Key) {
	if on, _ := v.on(); !on {
		return
	}
	f, info, err := openRegular(v.dir.file(key), os.O_RDONLY)
	if err != nil {
		return // gone, or to be found out when it is opened
	}
	defer f.Close()
	sum, err := verityOn(f, info)
	switch {
	case err == nil:
		v.note(key, info, sum)
	case errors.Is(err, errors.ErrUnsupported):
		if v.unsupported.CompareAndSwap(nil, &err) {
			v.log.Warn("no fs-verity for the cache: a disk that damages blobs is noticed only when they are verified",
				"dir", v.dir, "err", err)
		}
	default:
		v.log.Warn("a blob is not guarded by fs-verity", "key", key, "err", err)
	}
}

// note writes the kernel's hash beside the verdict on the same file.
func (v *verity) note(key Key, info os.FileInfo, sum string) {
	f, err := v.table.take(v.ctx, key)
	if err != nil {
		return
	}
	defer f.release()
	path := v.dir.mapOf(key)
	m, err := readMap(path)
	now, errNow := os.Lstat(v.dir.file(key))
	if err != nil || errNow != nil || !os.SameFile(now, info) || m.Verified == 0 || m.Verity == sum {
		return
	}
	m.Verity = sum
	if err := m.Write(path); err != nil {
		v.log.Warn("cannot note that a blob is guarded", "key", key, "err", err)
	}
}
