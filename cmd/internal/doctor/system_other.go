// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package doctor

import (
	"errors"
	"io/fs"
)

func ownedByRoot(fs.FileInfo) bool { return true }

func diskOf(string, int) (disk, error) { return disk{}, errors.ErrUnsupported }
