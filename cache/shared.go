// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A shared cache is the directory of another cache, of the site, say, in which whole
// blobs are looked for. It is never written to and no lock is taken on it. Naming it
// means to trust its owner: what is believed must belong to that owner, to root or to
// us, as must the directories above it, and nobody else may write to them. A blob is
// taken if it is noted beside it that its digest matched, at the time that the file
// has; else it is read once and compared. What has no digest that can be compared is
// not taken.

// shared opens a file of a shared cache. Errors: those of the disk;
// fs.ErrPermission if somebody may have changed it who is not trusted.
func (l layout) shared(path string) (*os.File, os.FileInfo, error) {
	top, err := os.Stat(string(l))
	if err != nil {
		return nil, nil, err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if dir == string(l) {
			info = top // which may be a link: it was named
		}
		if err == nil {
			err = trusted(info, top)
		}
		if err != nil {
			return nil, nil, err
		}
		if dir == string(l) {
			break
		}
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = trusted(info, top)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// trusted says why what is at a path may have been changed by somebody whom the one
// who named the shared cache at top did not name.
func trusted(info, top os.FileInfo) error {
	owner, ok := ownerOf(info)
	named, _ := ownerOf(top)
	switch {
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s can be written to by others (mode %#o)", fs.ErrPermission, info.Name(), info.Mode().Perm())
	case ok && owner != 0 && owner != os.Getuid() && owner != named:
		return fmt.Errorf("%w: %s belongs to uid %d, not to the cache's owner", fs.ErrPermission, info.Name(), owner)
	}
	return nil
}

// notes reports whether it is noted beside a shared blob that it matched its digest when
// it had the time that it has.
func (l layout) notes(key Key, info os.FileInfo) bool {
	f, _, err := l.shared(l.mapOf(key))
	if err != nil {
		return false
	}
	defer f.Close()
	m, err := chunks.ReadMap(f)
	return err == nil && m.Name == string(key) && m.Size == info.Size() && m.Verified == info.ModTime().UnixNano()
}
