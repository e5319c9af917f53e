// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/fetch"
)

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a blob is open or pinned.
	ErrInUse = errors.New("in use")
	// ErrClosed: the cache or the handle was closed.
	ErrClosed = fetch.ErrClosed
)

// localError is the border to the disk: errno that callers act on stay, and a
// missing file of our own must not read as "no such image".
func localError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("cache: %s: %w", op, errno)
	}
	return fmt.Errorf("cache: %s: %v", op, err)
}

// outward turns errors that are for this package only into what callers know.
func outward(err error) error {
	if errors.Is(err, fetch.ErrNoRoom) {
		return fmt.Errorf("cache: %w", syscall.ENOSPC)
	}
	return err
}

// isFull reports whether an error of the local disk says that there is no room.
func isFull(err error) bool {
	errno, ok := backends.LocalErrno(err)
	return ok && (errno == syscall.ENOSPC || errno == syscall.EDQUOT)
}

// isDamage reports whether an error of the local disk says that bytes are lost.
func isDamage(err error) bool {
	errno, ok := backends.LocalErrno(err)
	return ok && errno == syscall.EIO
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
