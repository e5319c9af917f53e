// SPDX-License-Identifier: Apache-2.0

//go:build unix

package badger

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile opens the file at path and locks it until it is closed. Badger has
// a lock of its own, but by then we might have moved a live index aside.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, &os.PathError{Op: "flock", Path: path, Err: err}
	}
	return f, nil
}

func syncOpenDir(f *os.File) error { return f.Sync() }
