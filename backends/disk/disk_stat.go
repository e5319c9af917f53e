// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package disk

import (
	"os"
	"syscall"
)

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
