// SPDX-License-Identifier: Apache-2.0

// Package disk has what package os lacks for files on this machine: names and
// contents that outlive a power loss, files that share blocks, and what a file
// system tells of a file beyond its size. It knows nothing of images, and its errors
// are those of the system.
package disk

import (
	"cmp"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// SyncDir makes the names in a directory outlive a power loss. Where directories
// cannot be synced (Windows, some network file systems) it does nothing.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(SyncOpenDir(dir), dir.Close())
}

// SyncOpenDir is SyncDir for a directory that the caller has open.
func SyncOpenDir(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil // Windows refuses the handle
	}
	return err
}

// Safety is how much of a replaced file is certain after a power loss. Readers get
// the whole of the old or of the new content in any case.
type Safety int

const (
	// Durable means the new content, once Replace has returned nil.
	Durable Safety = iota
	// OldOrNew means the whole of the old or of the new content.
	OldOrNew
	// Volatile means nothing; the file may be empty or missing.
	Volatile
)

// Replacement says how Replace writes. The zero value is a durable one.
type Replacement struct {
	Perm   fs.FileMode // of the file, before the umask; default 0600
	Safety Safety
	// Suffix makes the name of the temporary file, which is overwritten if a crash left
	// one. Without it the name is a new one, TemporaryPrefix and digits: where others can
	// write, they cannot have put a link there.
	Suffix string
}

// Replace makes data the content of the file at path, which need not exist. After an
// error the file is as it was, unless only syncing the directory failed.
func Replace(path string, data []byte, how Replacement) error {
	f, err := Create(path, how)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// A PendingFile is the next content of a file. The caller calls Commit or Abort.
type PendingFile struct {
	*os.File // under a temporary name

	path string
	how  Replacement
}

// Create opens an empty file that Commit puts in place of the one at path.
func Create(path string, how Replacement) (*PendingFile, error) {
	tmp, err := how.create(path)
	if err != nil {
		return nil, err
	}
	return &PendingFile{tmp, path, how}, nil
}

// Commit closes f and replaces the file. After an error that is as it was, unless only
// syncing the directory failed.
func (f *PendingFile) Commit() (err error) {
	if f.how.Safety != Volatile {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if f.how.Safety != Durable {
		return nil
	}
	return SyncDir(filepath.Dir(f.path))
}

// Abort closes and removes f; the file at path stays as it is.
func (f *PendingFile) Abort() error { return errors.Join(f.Close(), os.Remove(f.Name())) }

// TemporaryPrefix is how the names begin under which Replace writes a file; digits
// follow.
func TemporaryPrefix(path string) string { return "." + filepath.Base(path) + "-" }

// create makes the temporary file.
func (r Replacement) create(path string) (*os.File, error) {
	perm := cmp.Or(r.Perm, 0o600)
	if r.Suffix != "" {
		return os.OpenFile(path+r.Suffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	}
	for {
		name := TemporaryPrefix(path) + strconv.FormatUint(rand.Uint64(), 10)
		f, err := os.OpenFile(filepath.Join(filepath.Dir(path), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}
