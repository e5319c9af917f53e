// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckDir reports whether an index may be in dir. Errors: ErrNetwork; those of statfs.
func CheckDir(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		return fmt.Errorf("%s is on %s: %w", dir, unix.ByteSliceToString(st.Fstypename[:]), ErrNetwork)
	}
	return nil
}

func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Flags&unix.MNT_RDONLY != 0 {
		return 0, 0, &fs.PathError{Op: "write to", Path: dir, Err: unix.EROFS}
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

func fallocate(f *os.File, size int64) error { return fill(f, size) }
