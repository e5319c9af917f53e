// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cache

import (
	"errors"
	"os"

	"github.com/sregfs/sregfs/cache/chunks"
)

func fdatasync(f *os.File) error { return f.Sync() }

// unchanged cannot tell here: it says no.
func unchanged(_, _ os.FileInfo) bool { return false }

func nextData(_ *os.File, off, size int64) (start, end int64, ok bool) {
	return off, size, off < size
}

// bootID names the time since the machine was started; "" if it cannot be told.
func bootID() chunks.Boot { return "" }

func dropPages(*os.File) {}

func enableVerity(*os.File) error { return errors.ErrUnsupported }

func measureVerity(*os.File) (string, error) { return "", errors.ErrUnsupported }

// ownerOf cannot tell here.
func ownerOf(os.FileInfo) (uid int, ok bool) { return 0, false }
