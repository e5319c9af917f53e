// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// OpenRegular is os.OpenFile for a path at which others may have put anything. A
// FIFO would keep open(2) waiting until somebody writes to it, and a device may do
// something at every open: neither is waited for, and only a regular file is
// returned. NoFollow among the flags refuses a symbolic link, too.
//
// Errors: fs.ErrInvalid for what is no regular file; those of os.OpenFile.
func OpenRegular(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return Regular(os.OpenFile(path, flag|NoWait, perm))
}

// Regular is OpenRegular for a file that was opened in another way, with NoWait
// among its flags. It closes what it does not return.
func Regular(f *os.File, err error) (*os.File, error) {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, syscall.ENXIO) {
		return nil, notRegular(pathErr.Path, "a socket or a pipe") // which nobody reads
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(f.Name(), kindOf(info.Mode()))
	}
	if err == nil {
		err = waitAgain(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadRegular is os.ReadFile by OpenRegular, of at most limit bytes.
//
// Errors: those of OpenRegular; fs.ErrInvalid for a larger file.
func ReadRegular(path string, flag int, limit int64) ([]byte, error) {
	f, err := OpenRegular(path, os.O_RDONLY|flag, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", fs.ErrInvalid, path, limit)
	}
	return text, err
}

func notRegular(path, kind string) error {
	return fmt.Errorf("%w: %s is %s, not a regular file", fs.ErrInvalid, path, kind)
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}
