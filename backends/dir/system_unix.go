// SPDX-License-Identifier: Apache-2.0

//go:build unix

package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
)

// directory among the flags of an open makes it fail for anything else, where a
// FIFO would keep it waiting.
const directory = syscall.O_DIRECTORY

// inode returns a file's inode number.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// group returns a file's group.
func group(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Gid
	}
	return 0
}

// checkWritable returns why nothing can be made in a directory. Errors: the errno.
func checkWritable(dir string) error {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// likeNew gives f the mode and the group of a file that was just made, where
// its owner may. Errors: any, also where an access control list decides instead.
func likeNew(f, fresh *os.File) error {
	want, err := fresh.Stat()
	if err != nil {
		return err
	}
	have, err := f.Stat()
	if err != nil {
		return err
	}
	if hasACL(fresh) {
		return errors.ErrUnsupported
	}
	to, okTo := want.Sys().(*syscall.Stat_t)
	from, okFrom := have.Sys().(*syscall.Stat_t)
	if okTo && okFrom && to.Gid != from.Gid {
		if err := f.Chown(-1, int(to.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(want.Mode().Perm())
}

// lock keeps other writers out, in this process and others, for the moment in
// which names change. Where the file system has no locks (Lustre without
// "-o flock"), two pushes of one tag may both succeed; both images are then
// there, the newer one as the tag.
func (t *tree) lock(ctx context.Context) (unlock func(), err error) {
	if err := t.MkdirAll(private, 0o777); err != nil {
		return nil, err
	}
	f, err := backends.Regular(t.OpenFile(filepath.Join(private, "lock"), os.O_RDWR|os.O_CREATE|backends.NoWait, 0o666))
	if err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return func() { f.Close() }, nil
		}
		if !backends.Pause(ctx, wait, nil) {
			f.Close()
			return nil, ctx.Err()
		}
	}
}
