// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"errors"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
)

// pushError adds to err which push failed, unless it says so.
func pushError(remote string, ref backends.Ref, err error) error {
	if _, ok := errors.AsType[*backends.Error](err); ok {
		return err
	}
	return &backends.Error{Op: "push", Remote: remote, Ref: ref, Err: err}
}

// final reports whether another try cannot help: the configuration or the draft is
// the reason, or the registry has refused this very push. A doubtful error is not.
func final(err error) bool {
	if _, ok := errors.AsType[*doubtful](err); ok {
		return false
	}
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, fs.ErrNotExist, backends.ErrChanged, backends.ErrReadOnly,
		backends.ErrCorrupt, backends.ErrNotAllowed, errors.ErrUnsupported, cache.ErrClosed, spool.ErrClosed, catalog.ErrClosed} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// A doubtful error may not be the registry's: the sign-in page of a network, or a proxy,
// answers any request in its place, and may be gone tomorrow. Only two answers are
// certain to be a registry's: that the tag is taken, and that it refuses this image.
type doubtful struct{ error }

// Unwrap returns the cause.
func (d *doubtful) Unwrap() error { return d.error }

// judged returns the error of a push, marked as doubtful unless it is certain.
func judged(err error) error {
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, backends.ErrChanged} {
		if errors.Is(err, target) {
			return err
		}
	}
	return &doubtful{err}
}
