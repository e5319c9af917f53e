// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"os"

	"github.com/sregfs/sregfs/backends"
)

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a draft is open, or on its way to its registry.
	ErrInUse = errors.New("in use")
	// ErrClosed: the spool or the handle was closed.
	ErrClosed = errors.New("spool: closed")
)

func errNoDraft(id string) error { return backends.NotFound("no draft %q", id) }

// diskError turns errors of the disk into those of this package: the errno stays, and a
// missing file of our own does not read as "no such image".
func diskError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("spool: %s: %w", op, errno)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("spool: %s: %w", op, errors.ErrUnsupported)
	}
	return fmt.Errorf("spool: %s: %v", op, err)
}

func errWithdrawn(id string) error {
	return backends.NotFound("draft %s was discarded", id)
}
