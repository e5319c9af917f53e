// SPDX-License-Identifier: Apache-2.0

package fsys

import "errors"

// What a tree can refuse beyond the sentinels of io/fs and backends.
var (
	// ErrNameTooLong: a name of more than MaxName bytes.
	ErrNameTooLong = errors.New("name too long")
	// ErrNotEmpty: a directory that still holds something.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrBusy: the file is being published, or is renamed by another process.
	ErrBusy = errors.New("on its way to the registry")
	// ErrCrossDevice: the rename is not possible; mv copies and deletes instead.
	ErrCrossDevice = errors.New("cannot be renamed, only copied")
	// ErrIsDir: a directory where a file is expected.
	ErrIsDir = errors.New("is a directory")
	// ErrNotDir: a file where a directory is expected.
	ErrNotDir = errors.New("not a directory")
	// ErrRetry: the caller must look up the name again, because it means something else
	// for the caller now. See Image.OpenWrite.
	ErrRetry = errors.New("look up the name again")
)
