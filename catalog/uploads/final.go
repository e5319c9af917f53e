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

// final reports whether another try cannot help: the configuration or the draft is
// the reason, or the registry has refused this very push. What an answer only makes
// likely (see doubtful) is not.
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

// doubtful is an error of which nobody knows who gave it: the sign-in page of a
// network, or a proxy, answers any question in place of the registry, and tomorrow
// it is not there any more. Only what a registry alone can mean is believed: that the
// tag is taken, or that it does not want this image.
type doubtful struct{ error }

// Unwrap returns the cause.
func (d *doubtful) Unwrap() error { return d.error }

// judged marks as doubtful what a registry, or somebody in its place, answered to a
// push.
func judged(err error) error {
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, backends.ErrChanged} {
		if errors.Is(err, target) {
			return err
		}
	}
	return &doubtful{err}
}
