// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package backends

import (
	"io/fs"
	"os"
)

// Flags for os.OpenFile, which have no counterpart here.
const (
	NoFollow = 0
	NoWait   = 0
)

// OnlyOurs cannot tell here: it says yes.
func OnlyOurs(fs.FileInfo) bool { return true }

func waitAgain(*os.File) error { return nil }
