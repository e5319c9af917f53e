// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// free returns the bytes that we may still write to the disk of f.
func (f folder) free() (int64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(string(f), &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // Bsize is an int32 on 32-bit machines
}

const fallocKeepSize = 1 // FALLOC_FL_KEEP_SIZE of linux/falloc.h

func allocate(file *os.File, off, n int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = fallocKeepSize
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	err = conn.Control(func(fd uintptr) {
		for {
			errno = syscall.Fallocate(int(fd), mode, off, n)
			if errno != syscall.EINTR {
				return
			}
		}
	})
	return errors.Join(err, errno)
}

// clone makes dst share the blocks of src, where the file system can.
func clone(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// unlinked reports whether a file that is open has no name any more.
func unlinked(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// linked reports whether a file has a second name, so that writing to it would
// change what somebody else holds.
func linked(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}
