// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hasACL reports whether more than a file's mode says who may open it: it got a
// list from its directory.
func hasACL(f *os.File) bool {
	n, err := unix.Fgetxattr(int(f.Fd()), "system.posix_acl_access", nil)
	return err == nil && n > 0
}

// reserve takes the blocks for size bytes. Where the file system cannot, the
// writes will tell.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return &os.PathError{Op: "reserve", Path: f.Name(), Err: err}
	}
	return nil
}

// linkFrom makes name, below the root, a hard link to a file anywhere.
func (t *tree) linkFrom(file, name string) error {
	dir, err := openDir(t.Root, filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Linkat(unix.AT_FDCWD, file, int(dir.Fd()), filepath.Base(name), 0)
}

// fileStateOf includes the time of the last change, which nobody can set.
func fileStateOf(info fs.FileInfo) fileState {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileState{}
	}
	return fileState{
		device: uint64(st.Dev), inode: st.Ino, size: st.Size, //nolint:unconvert // Dev has 32 bits on some machines
		modTime: st.Mtim.Nano(), chgTime: st.Ctim.Nano(),
	}
}

// Margins by which the kernel's clock must be past the last change, so that the
// next one gets another time: for file systems that keep fractions of a second,
// and for those (ext4 with small inodes) that do not.
const (
	fineTimes   = 20 * time.Millisecond
	coarseTimes = 2 * time.Second
)

// lasting tells for how long a reading of f that begins now may be used, if f
// has that fileState now.
//
// What changes within one tick of the kernel's clock gets one time of change: if
// the clock has not moved on, the reading may miss what the same tick brings. A
// file system of another machine has another clock, and its attributes are
// remembered here for seconds.
func lasting(f *os.File, now fileState) time.Duration {
	var disk unix.Statfs_t
	var clock unix.Timespec
	if unix.Fstatfs(int(f.Fd()), &disk) != nil || unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &clock) != nil {
		return never
	}
	if !ownClock(uint32(disk.Type)) { //nolint:gosec // a magic number of 32 bits
		return briefly
	}
	margin := fineTimes
	if now.chgTime%int64(time.Second) == 0 {
		margin = coarseTimes
	}
	if clock.Nano()-now.chgTime < int64(margin) {
		return never
	}
	return always
}

// ownClock knows the file systems whose times of change are made by this kernel.
func ownClock(kind uint32) bool {
	switch kind {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, zfsMagic, bcachefsMagic:
		return true
	}
	return false
}

const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
)
