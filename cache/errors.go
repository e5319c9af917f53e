// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"

	"github.com/sregfs/sregfs/cache/fetch"
)

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a blob is open or pinned.
	ErrInUse = errors.New("in use")
	// ErrClosed: the cache or the handle was closed.
	ErrClosed = fetch.ErrClosed
)
