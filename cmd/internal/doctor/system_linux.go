// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ownedByRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}

// diskOf looks at the file system of a directory, and at the quota there of a user.
func diskOf(dir string, uid int) (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return disk{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	d := disk{
		free: int64(st.Bavail) * st.Frsize, total: int64(st.Blocks) * st.Frsize, //nolint:gosec // sizes of a disk
		inodes: int64(st.Ffree), files: int64(st.Files), //nolint:gosec // likewise
		readOnly: st.Flags&unix.ST_RDONLY != 0,
	}
	d.used, d.limit = quota(dir, uid)
	return d, nil
}

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	hard, soft, used             uint64 // the limits in blocks of 1024 bytes, used in bytes
	inodeHard, inodeSoft, inodes uint64
	blockTime, inodeTime         uint64
	valid                        uint32
	_                            uint32
}

// quota returns what a user has used of his limit, in bytes; 0 where the kernel knows of
// none. What a server keeps to itself, as most of NFS do, is not seen.
func quota(dir string, uid int) (used, limit int64) {
	const getQuota, ofUser = 0x800007, 0 // Q_GETQUOTA, USRQUOTA
	f, err := os.Open(dir)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	var q dqblk
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), getQuota<<8|ofUser, uintptr(uid), uintptr(unsafe.Pointer(&q)), 0, 0) //nolint:gosec // quotactl_fd(2)
	if errno != 0 {
		return 0, 0
	}
	blocks := q.hard
	if blocks == 0 {
		blocks = q.soft
	}
	return int64(q.used), int64(blocks) << 10 //nolint:gosec // bytes of a disk
}
