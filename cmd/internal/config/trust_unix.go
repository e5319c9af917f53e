// SPDX-License-Identifier: Apache-2.0

//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const writeOther, writeGroup = 0o002, 0o020

// checkTrust refuses a file that somebody else could have written: it says where
// logins are sent, and which command is run for them. The file, whose facts are of
// the open one, must belong to us or to root and be writable by nobody else; nobody
// else may replace it or a directory above. For root that is: nobody but root.
func checkTrust(path string, info fs.FileInfo, uid int) error {
	if err := checkOwner(path, info, uid); err != nil {
		return err
	}
	if mode := info.Mode(); mode&(writeOther|writeGroup) != 0 {
		return fmt.Errorf("%s can be written by others (mode %#o): chmod go-w it", path, mode.Perm())
	}
	seen := map[string]bool{}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	for _, name := range []string{path, real} { // a link can be replaced, too
		for dir := filepath.Dir(name); !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			if err := checkDir(path, dir, uid); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkDir looks at a directory above path. In one with the sticky bit (/tmp) only
// the owner of an entry replaces it. Who owns the directories of an ordinary user is
// the affair of the machine: in a user namespace it can be nobody.
func checkDir(path, dir string, uid int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid == 0 {
		if err := checkOwner(dir, info, uid); err != nil {
			return fmt.Errorf("%s: the directory %w", path, err)
		}
	}
	forbidden := fs.FileMode(writeOther)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && uid == 0 && st.Gid != 0 {
		forbidden |= writeGroup
	}
	if mode := info.Mode(); mode&forbidden != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%s: the directory %s above it can be written by others (mode %#o): chmod go-w it", path, dir, mode.Perm())
	}
	return nil
}

// checkOwner refuses what belongs neither to uid nor to root.
func checkOwner(path string, info fs.FileInfo, uid int) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 && int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to another user (uid %d, this is %d): it is not obeyed; chown it, or name another file", path, st.Uid, uid)
	}
	return nil
}
