// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/fsys"
)

// errnos maps errors to errnos. The first line that matches wins, so special errors stand
// before general ones. There is no other such table.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{fsys.ErrRetry, syscall.ESTALE}, // the kernel looks the name up once more
	{fsys.ErrNameTooLong, syscall.ENAMETOOLONG},
	{fsys.ErrNotEmpty, syscall.ENOTEMPTY},
	{fsys.ErrCrossDevice, syscall.EXDEV},
	{fsys.ErrIsDir, syscall.EISDIR},
	{fsys.ErrNotDir, syscall.ENOTDIR},
	{fsys.ErrBusy, syscall.EBUSY},
	{backends.ErrCorrupt, syscall.EIO},
	{backends.ErrBadAnswer, syscall.EIO},
	{backends.ErrNotAllowed, syscall.EPERM},
	{backends.ErrReadOnly, syscall.EROFS},
	{backends.ErrChanged, syscall.ESTALE},
	{backends.ErrRateLimited, syscall.EBUSY},
	{backends.ErrUnauthorized, syscall.EACCES},
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{backends.ErrUnavailable, syscall.EHOSTDOWN},
	{cache.ErrInUse, syscall.EBUSY},
	{spool.ErrInUse, syscall.EBUSY},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrPermission, syscall.EACCES},
	{fs.ErrInvalid, syscall.EINVAL},
	{errors.ErrUnsupported, syscall.EOPNOTSUPP},
}

// errno returns the errno of err; known is false if it is EIO because the table has none.
//
// It is never ENOSYS: for most operations the kernel takes that as "not implemented" and
// never asks again, and for flush it means success.
func errno(err error) (e syscall.Errno, known bool) {
	if err == nil {
		return 0, true
	}
	if e, ok := backends.LocalErrno(err); ok {
		return e, true
	}
	for _, m := range errnos {
		if errors.Is(err, m.err) {
			return m.errno, true
		}
	}
	return syscall.EIO, false
}

// fail returns the errno of an operation's error, and logs the error, because the caller
// sees the errno only. Routine errors are not logged.
func (m *Mounted) fail(op, name string, err error) syscall.Errno {
	e, known := errno(err)
	if !isRoutine(e) {
		m.logFailure(op, name, e, known, err)
	}
	return e
}
