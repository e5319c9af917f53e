// SPDX-License-Identifier: Apache-2.0

// Package statedir is the directory of a user's state on one machine: where it
// is, who may use it, and which process does.
//
// In it are the index (expendable), the spool of uploads (not), and the file
// "lock", which the process that runs the engine holds for as long as it runs. Other
// processes read there who that is and at which socket it listens.
//
// [Choose] says where the directory is, [Lock] takes it, [Holder] asks who has it.
package statedir

import (
	"os"
	"path/filepath"
)

// A Dir is a state directory that this process holds.
type Dir struct {
	path string
	lock *os.File
	self Process
}

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// Index returns the directory of the index, which need not be there.
func (d *Dir) Index() string { return filepath.Join(d.path, "index") }

// Spool returns the directory of the uploads, which need not be there.
func (d *Dir) Spool() string { return filepath.Join(d.path, "spool") }

func lockPath(dir string) string { return filepath.Join(dir, "lock") }
