// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

import (
	"errors"
	"os"
)

// Clone is not possible here.
func Clone(_, _ *os.File) error { return errors.ErrUnsupported }

// Allocate is not possible here.
func Allocate(_ *os.File, _, _ int64) error { return errors.ErrUnsupported }

// AllocateBeyond is not possible here.
func AllocateBeyond(_ *os.File, _, _ int64) error { return errors.ErrUnsupported }

// Names cannot tell here.
func Names(os.FileInfo) int { return 1 }

// Allocated cannot tell here.
func Allocated(info os.FileInfo) int64 { return info.Size() }

// Space cannot tell here.
func Space(string) (free, total int64, ok bool) { return 0, 0, false }
