// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
)

// Every sentinel that can reach the adapter, and what the caller sees.
var sentinels = map[error]syscall.Errno{
	fs.ErrNotExist:           syscall.ENOENT,
	fs.ErrExist:              syscall.EEXIST,
	fs.ErrPermission:         syscall.EACCES,
	fs.ErrInvalid:            syscall.EINVAL,
	errors.ErrUnsupported:    syscall.EOPNOTSUPP,
	context.Canceled:         syscall.EINTR,
	context.DeadlineExceeded: syscall.ETIMEDOUT,
	os.ErrDeadlineExceeded:   syscall.EIO,
	backends.ErrUnauthorized: syscall.EACCES,
	backends.ErrNoFile:       syscall.EACCES,
	backends.ErrNoVariant:    syscall.ENOENT,
	backends.ErrRateLimited:  syscall.EBUSY,
	backends.ErrUnavailable:  syscall.EHOSTDOWN,
	backends.ErrCorrupt:      syscall.EIO,
	backends.ErrBadAnswer:    syscall.EIO,
	backends.ErrChanged:      syscall.ESTALE,
	backends.ErrReadOnly:     syscall.EROFS,
	backends.ErrNotAllowed:   syscall.EPERM,
	backends.ErrNotImage:     syscall.EACCES,
	cache.ErrInUse:           syscall.EBUSY,
	cache.ErrClosed:          syscall.EIO,
	catalog.ErrClosed:        syscall.EIO,
	fsys.ErrNameTooLong:      syscall.ENAMETOOLONG,
	fsys.ErrNotEmpty:         syscall.ENOTEMPTY,
	fsys.ErrBusy:             syscall.EBUSY,
	fsys.ErrCrossDevice:      syscall.EXDEV,
	fsys.ErrIsDir:            syscall.EISDIR,
	fsys.ErrNotDir:           syscall.ENOTDIR,
	fsys.ErrRetry:            syscall.ESTALE,
	syscall.ENOSPC:           syscall.ENOSPC,
	syscall.EDQUOT:           syscall.EDQUOT,
	syscall.EFBIG:            syscall.EFBIG,
	syscall.EROFS:            syscall.EROFS,
	syscall.EMFILE:           syscall.EMFILE,
	syscall.ENFILE:           syscall.ENFILE,
	syscall.ENOMEM:           syscall.ENOMEM,
	syscall.EIO:              syscall.EIO,
	syscall.ENOSYS:           syscall.EOPNOTSUPP,
	syscall.ECONNREFUSED:     syscall.EIO,
	errors.New("whatever"):   syscall.EIO,
}

func TestErrno(t *testing.T) {
	t.Parallel()
	for sentinel, want := range sentinels {
		wraps := map[string]error{
			"bare":    sentinel,
			"wrapped": fmt.Errorf("pull: %w", sentinel),
			"twice":   fmt.Errorf("open: %w", fmt.Errorf("pull: %w", sentinel)),
			"joined":  errors.Join(errors.New("closing"), sentinel),
			"client":  &backends.Error{Op: "stat", Remote: "lab", Err: sentinel},
			"delayed": &backends.Error{Op: "stat", Err: &backends.DelayError{Err: sentinel, After: time.Second}},
			"path":    &fs.PathError{Op: "open", Path: "x", Err: sentinel},
		}
		for name, err := range wraps {
			got, _ := errno(err)
			if got != want {
				t.Errorf("errno(%v, %s) = %v, want %v", sentinel, name, got, want)
			}
			if got == syscall.ENOSYS {
				t.Errorf("errno(%v, %s) is ENOSYS, which the kernel never forgets", sentinel, name)
			}
		}
	}
	if e, known := errno(nil); e != 0 || !known {
		t.Errorf("errno(nil) = %v, %v", e, known)
	}
}

// A table entry that no sentinel above reaches is one that nobody has thought of.
func TestErrno_tableIsCovered(t *testing.T) {
	t.Parallel()
	for _, m := range errnos {
		if _, ok := sentinels[m.err]; !ok {
			t.Errorf("%v is in the table but not in the test", m.err)
		}
	}
	// Every errno that there is, as an error by itself.
	for e := syscall.Errno(1); e < 134; e++ {
		if got, _ := errno(e); got == syscall.ENOSYS || got == 0 {
			t.Errorf("errno(%v) = %v", e, got)
		}
	}
}
