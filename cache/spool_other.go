// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cache

import (
	"errors"
	"os"
)

func (f folder) free() (int64, bool) { return 0, false }

func allocate(_ *os.File, _, _ int64, _ bool) error { return errors.ErrUnsupported }

func clone(_, _ *os.File) error { return errors.ErrUnsupported }

func linked(os.FileInfo) bool { return false }

func unlinked(os.FileInfo) bool { return false }
