// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package statedir

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
)

const exclusive, shared = 0, 0

var errLocked, errFull, errReadOnly = errors.New("locked"), errors.New("full"), errors.New("read-only")

// flock has no counterpart here: no state directory can be held.
func flock(*os.File, int) error { return errors.ErrUnsupported }

func unlock(f *os.File) error { return f.Close() }

func ownerOf(fs.FileInfo) (uid int, ok bool) { return 0, false }

func userName(uid int) string { return strconv.Itoa(uid) }

func writable(string) error { return nil }
