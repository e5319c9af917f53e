// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// fdatasync puts what was written to f, and its length, on stable storage.
func fdatasync(f *os.File) error { return disk.Control(f, syscall.Fdatasync) }

// unchanged reports whether both are of one file to which nothing happened in
// between: neither its bytes nor its names nor its permissions changed.
func unchanged(a, b os.FileInfo) bool {
	x, okX := a.Sys().(*syscall.Stat_t)
	y, okY := b.Sys().(*syscall.Stat_t)
	return okX && okY && x.Dev == y.Dev && x.Ino == y.Ino && x.Size == y.Size && x.Nlink == y.Nlink &&
		x.Mode == y.Mode && x.Mtim == y.Mtim && x.Ctim == y.Ctim
}

// nextData returns the first stretch of f from off on that is not a hole; off
// and size tell how far. ok is false when there is none any more.
func nextData(f *os.File, off, size int64) (start, end int64, ok bool) {
	start, err := f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return 0, 0, false
	}
	if err != nil {
		return off, size, true // a filesystem that cannot tell
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		end = size
	}
	return start, end, true
}

// bootID names the time since the machine was started; "" if it cannot be told.
var bootID = sync.OnceValue(func() chunks.Boot {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return chunks.Boot(strings.TrimSpace(string(id)))
})

// dropPages makes the next reads of f come from the disk.
func dropPages(f *os.File) {
	_ = disk.Control(f, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// ownerOf returns the user to whom a file belongs; ok is false if that cannot be told.
func ownerOf(info os.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
