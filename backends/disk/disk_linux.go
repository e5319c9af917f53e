// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control calls fn with f's descriptor, again while a signal interrupts it.
func Control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = conn.Control(func(fd uintptr) {
		for {
			if inner = fn(int(fd)); !errors.Is(inner, syscall.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, inner)
}

// Clone makes dst share the blocks of src (ioctl FICLONE). Errors: any means that the
// bytes must be copied.
func Clone(dst, src *os.File) error {
	return Control(dst, func(to int) error {
		return Control(src, func(from int) error { return unix.IoctlFileClone(to, from) })
	})
}

// Allocate reserves n bytes from off, as fallocate(2), and grows the file to hold them.
// Errors: errors.ErrUnsupported where the file system cannot.
func Allocate(f *os.File, off, n int64) error { return allocate(f, 0, off, n) }

// AllocateBeyond is Allocate, but the size of the file stays.
func AllocateBeyond(f *os.File, off, n int64) error {
	return allocate(f, unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func allocate(f *os.File, mode uint32, off, n int64) error {
	return Control(f, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

// Names returns how many names a file has; 1 where that cannot be told.
func Names(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// Allocated returns the bytes of the disk that a file takes; its size where that
// cannot be told.
func Allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// Space returns the bytes that this process may still write to the disk of dir, and
// how many it has in all; ok is false if that cannot be told.
func Space(dir string) (free, total int64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, false
	}
	block := int64(st.Bsize) //nolint:unconvert // of other types on other systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, true
}
