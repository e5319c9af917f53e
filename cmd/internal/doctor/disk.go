// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/catalog/badger"
)

// index is whether the state directory is on a disk that an index can be on.
func (m Machine) index() Finding {
	const check = "state"
	if m.State == "" {
		return fail(check, "there is no state directory", "set SREGFS_HOME to a directory on a local disk")
	}
	if err := badger.CheckDir(existing(m.State)); err != nil {
		return fail(check, err.Error(), "set SREGFS_HOME to a directory on a local disk")
	}
	return ok(check, m.State)
}

// A disk is how full a file system is.
type disk struct {
	free, total   int64 // bytes for this user
	inodes, files int64 // free ones, and all; 0 of all: they are not counted
	// used and limit are the quota of the user in bytes; 0 means none.
	used, limit int64
	readOnly    bool
}

// disks looks at where bytes are written to.
func (m Machine) disks() (all []Finding) {
	for _, dir := range []struct{ name, path string }{{"state", m.State}, {"cache", m.Cache}, {"images", m.Storage}} {
		if dir.path == "" {
			continue
		}
		check := "disk of the " + dir.name
		d, err := diskOf(existing(dir.path), m.UID)
		if err != nil {
			all = append(all, fail(check, err.Error(), "look at the disk"))
			continue
		}
		all = append(all, d.finding(check, dir.path, m.MinFree))
	}
	return all
}

// scarce is so little room, in bytes, that the first large image takes it.
const scarce = 2 << 30

func (d disk) finding(check, path string, minFree int64) Finding {
	size := func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
	room := fmt.Sprintf("%s: %s of %s free", path, size(d.free), size(d.total))
	if d.limit > 0 {
		room += fmt.Sprintf(", %s of a quota of %s used", size(d.used), size(d.limit))
	}
	const more = "make room, or choose another directory (cache_dir, home, storage)"
	switch {
	case d.readOnly:
		return fail(check, path+" is on a file system that is read-only", "mount it for writing, or choose another directory (cache_dir, home, storage)")
	case d.files > 0 && d.inodes < 100:
		return fail(check, fmt.Sprintf("%s: %d of %d inodes free", path, d.inodes, d.files), more)
	case d.limit > 0 && d.used >= d.limit:
		return fail(check, room, "remove files, or have the quota raised")
	case d.free <= max(minFree, minFreeDefault):
		return fail(check, room, more)
	case d.files > 0 && d.inodes < d.files/100:
		return warn(check, fmt.Sprintf("%s: %d of %d inodes free", path, d.inodes, d.files), more)
	case d.limit > 0 && d.used > d.limit/10*9:
		return warn(check, room, "remove files, or have the quota raised")
	case d.free < scarce:
		return warn(check, room, more)
	}
	return ok(check, room)
}

// minFreeDefault is what the setting min_free is, in bytes, where it is not set, at most.
const minFreeDefault = 256 << 20

// existing returns dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
