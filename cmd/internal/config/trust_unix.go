// SPDX-License-Identifier: Apache-2.0

//go:build unix

package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sregfs/sregfs/backends"
)

const writeOther, writeGroup = 0o002, 0o020

// checkTrust refuses a file that somebody else could have written: it says where
// logins are sent, and which command is run for them. The file, whose facts are of
// the open one, must belong to us or to root and be writable by nobody else (its owner's
// own group is nobody else); nobody else may replace it or a directory above. For root
// that is: nobody but root.
func checkTrust(path string, info fs.FileInfo, uid int) error {
	if err := checkOwner(path, info, uid); err != nil {
		return err
	}
	if mode := foreign(info); mode&(writeOther|writeGroup) != 0 {
		return fmt.Errorf("%s can be written by others (mode %#o): chmod go-w it", path, info.Mode().Perm())
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

// foreign returns the permissions of a file that somebody else can have: where its
// group is its owner's own, those of the group are nobody's.
func foreign(info fs.FileInfo) fs.FileMode {
	mode := info.Mode().Perm()
	if st, ok := info.Sys().(*syscall.Stat_t); ok && mode&0o070 != 0 && privateGroup("/etc", st.Uid, st.Gid) {
		mode &^= 0o070
	}
	return mode &^ 0o700
}

// privateGroup reports whether a group is that of one user alone: it has his name, is
// his first one, and the files in etc know of nobody else in it. What a
// directory service knows is not asked: such a group counts as others'.
func privateGroup(etc string, uid, gid uint32) bool {
	var name string
	for _, user := range rows(filepath.Join(etc, "passwd"), 4) {
		switch {
		case user[3] != fmt.Sprint(gid):
		case user[2] == fmt.Sprint(uid):
			name = cmp.Or(name, user[0])
		default:
			return false // it is somebody else's first one, too
		}
	}
	found := false
	for _, group := range rows(filepath.Join(etc, "group"), 4) {
		if group[2] != fmt.Sprint(gid) {
			continue
		}
		if found || group[0] != name || group[3] != "" && group[3] != name {
			return false
		}
		found = true
	}
	return found
}

// rows returns the lines of a file that have at least n fields between colons.
func rows(path string, n int) (all [][]string) {
	text, err := backends.ReadRegular(path, 0, maxFile)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if row := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(row) >= n {
			all = append(all, row)
		}
	}
	return all
}
