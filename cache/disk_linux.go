// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"unsafe"

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

const verityBlock = 4096 // what all filesystems with fs-verity take

// enableVerity makes f immutable and checked by the kernel, which reads all of it
// now. Errors: errors.ErrUnsupported where the kernel or the filesystem has no
// fs-verity; those of the local disk.
func enableVerity(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: verityBlock}
	err := verityIoctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
	if errors.Is(err, syscall.EEXIST) {
		return nil // it was on already
	}
	return err
}

// measureVerity returns the kernel's hash of f, which is not that of its bytes
// alone. Errors: any means that fs-verity is off.
func measureVerity(f *os.File) (string, error) {
	var arg struct {
		unix.FsverityDigest
		sum [64]byte
	}
	arg.Size = uint16(len(arg.sum))
	if err := verityIoctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%s", arg.Algorithm, hex.EncodeToString(arg.sum[:min(int(arg.Size), len(arg.sum))])), nil
}

func verityIoctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	err := disk.Control(f, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
	if errors.Is(err, syscall.ENOTTY) {
		return fmt.Errorf("%w: %v", errors.ErrUnsupported, err)
	}
	return err
}
