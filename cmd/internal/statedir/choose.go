// SPDX-License-Identifier: Apache-2.0

package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/catalog/badger"
)

// Choose returns the state directory of a user on this machine: $SREGFS_HOME if
// it is set; else the first of these that is on a local disk, ours and writable:
//
//	$XDG_STATE_HOME/sregfs/<hostname>  (~/.local/state where it is not set)
//	/var/tmp/sregfs-<uid>
//	$TMPDIR/sregfs-<uid>
//	$XDG_RUNTIME_DIR/sregfs
//	/tmp/sregfs-<uid>
//
// A $SREGFS_HOME on a file system that is read-only is passed over too: what can be
// read is worth a mount.
//
// The host name is there because a home directory may be on several machines at
// once. Nothing is created. The notes say, in a line each, why an earlier
// place was passed over.
//
// Errors: fs.ErrInvalid for a place on a network filesystem; fs.ErrPermission
// for one that is not ours or not writable. Only $SREGFS_HOME, or the lack of any
// place, is an error.
func Choose(getenv func(string) string, home string, uid int, hostname string) (path string, notes []string, err error) {
	if path := getenv("SREGFS_HOME"); path != "" {
		path, err := filepath.Abs(path)
		if err == nil {
			err = usable(path, uid)
		}
		switch {
		case err == nil:
			return path, nil, nil
		case !errors.Is(err, errReadOnly):
			return "", nil, fmt.Errorf("SREGFS_HOME: %w", err)
		}
		notes = append(notes, fmt.Sprintf("state is not kept in %s, and uploads that wait there are not seen: %v", path, err))
	}
	var all []error
	for _, path := range candidates(getenv, home, uid, hostname) {
		err := usable(path, uid)
		if err == nil {
			return path, notes, nil
		}
		all = append(all, err)
		notes = append(notes, fmt.Sprintf("state is not kept in %s: %v", path, err))
	}
	return "", notes, fmt.Errorf("no place for the state, set SREGFS_HOME to a directory on a local disk: %w", errors.Join(all...))
}

func candidates(getenv func(string) string, home string, uid int, hostname string) []string {
	var all []string
	add := func(base string, name ...string) {
		if filepath.IsAbs(base) { // the XDG specification has relative ones ignored
			all = append(all, filepath.Join(append([]string{base}, name...)...))
		}
	}
	if base := getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		add(base, "sregfs", hostPart(hostname))
	} else if home != "" {
		add(home, ".local", "state", "sregfs", hostPart(hostname))
	}
	own := "sregfs-" + strconv.Itoa(uid)
	add("/var/tmp", own)
	add(getenv("TMPDIR"), own)
	add(getenv("XDG_RUNTIME_DIR"), "sregfs")
	add("/tmp", own)
	return all
}

// hostPart makes one part of a path of a host name, which could be anything.
func hostPart(hostname string) string {
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == '\\' || r == 0x7f {
			return '_'
		}
		return r
	}, hostname)
	if strings.Trim(name, ".") == "" {
		return "localhost"
	}
	return name
}

// usable says whether path can be, or become, the state directory of uid.
func usable(path string, uid int) error {
	err := ours(path, uid)
	for errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		_, err = os.Stat(path)
	}
	if err != nil {
		return err
	}
	if err := badger.CheckDir(path); err != nil {
		return err
	}
	return writable(path)
}

// A ForeignError says that a directory is another user's. It is fs.ErrPermission.
type ForeignError struct{ Path, Owner, User string }

// Error implements error.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%v: %s belongs to %s, not to %s", fs.ErrPermission, e.Path, e.Owner, e.User)
}

// Unwrap returns fs.ErrPermission.
func (e *ForeignError) Unwrap() error { return fs.ErrPermission }

// ours says whether path is a directory that belongs to uid. A symbolic link
// must be uid's too: in /var/tmp anybody could have made it.
func ours(path string, uid int) error {
	link, err := os.Lstat(path)
	if err != nil {
		return err
	}
	dir, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !dir.IsDir() {
		return fmt.Errorf("%w: %s is not a directory", fs.ErrInvalid, path)
	}
	for _, info := range []fs.FileInfo{link, dir} {
		if owner, ok := ownerOf(info); ok && owner != uid {
			return &ForeignError{Path: path, Owner: userName(owner), User: userName(uid)}
		}
	}
	return nil
}
