// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// networks are the filesystems on which flock, or a shared memory map, does not
// do what a database needs: NFS gives EBADF for flock on a directory, Lustre
// ENOSYS, and none of them keeps maps on two nodes the same.
var networks = map[uint32]string{
	0x00006969: "NFS",
	0x0bd00bd0: "Lustre",
	0x47504653: "GPFS",
	0xff534d42: "CIFS",
	0xfe534d42: "SMB2",
	0x0000517b: "SMB",
	0x65735546: "FUSE",
	0x00c36400: "Ceph",
	0x5346414f: "AFS",
	0x6b414653: "AFS",
	0x19830326: "BeeGFS",
	0x01021997: "9P",
	0x73757245: "Coda",
	0x7461636f: "OCFS2",
	0xaad7aaea: "PanFS",
	0x20030528: "OrangeFS",
	0x0000564c: "NCP",
}

// CheckDir reports whether an index may be in dir. Errors: ErrNetwork; those of statfs.
func CheckDir(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if name, ok := networks[uint32(st.Type)]; ok {
		return fmt.Errorf("%s is on %s: %w", dir, name, ErrNetwork)
	}
	return nil
}

// space returns the bytes that we may still write to the disk of dir, and its
// size. It is 0 when there are no inodes left.
// Errors: EROFS, also for a disk that the kernel has made read-only after an error
// of it: a page of a memory map that has no block there would end the process.
func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return 0, 0, &fs.PathError{Op: "write to", Path: dir, Err: unix.EROFS}
	}
	total = int64(st.Blocks) * st.Frsize
	if st.Files > 0 && st.Ffree < 32 {
		return 0, total, nil
	}
	return int64(st.Bavail) * st.Frsize, total, nil
}

// allocated returns the bytes that a file has blocks for.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

func fallocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fill(f, size)
	}
	return err
}
