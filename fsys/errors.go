// SPDX-License-Identifier: Apache-2.0

package fsys

import "errors"

// What a tree can refuse beyond the sentinels of io/fs and backends.
var (
	// ErrNameTooLong: a name of more than MaxName bytes.
	ErrNameTooLong = errors.New("name too long")
	// ErrNotEmpty: a directory that still holds something.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrBusy: the file is on its way to the registry, or somebody else renames it.
	ErrBusy = errors.New("on its way to the registry")
	// ErrCrossDevice: a rename that copying and deleting can do instead.
	ErrCrossDevice = errors.New("cannot be renamed, only copied")
	// ErrIsDir: a directory where a file is meant.
	ErrIsDir = errors.New("is a directory")
	// ErrNotDir: a file where a directory is meant.
	ErrNotDir = errors.New("not a directory")
	// ErrRetry: the name must be looked up again, by the same caller: what it
	// means for the caller has changed. See Image.OpenWrite.
	ErrRetry = errors.New("look up the name again")
)
