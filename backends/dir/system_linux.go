// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// clone makes out share the blocks of in, where the file system can.
func clone(out, in *os.File) error {
	return unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
}

// reserve takes the blocks for size bytes. Where the file system cannot, the
// writes will tell.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return &os.PathError{Op: "reserve", Path: f.Name(), Err: err}
	}
	return nil
}

// linkFrom makes name, below the root, a hard link to a file anywhere.
func (t *tree) linkFrom(file, name string) error {
	dir, err := t.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Linkat(unix.AT_FDCWD, file, int(dir.Fd()), filepath.Base(name), 0)
}
