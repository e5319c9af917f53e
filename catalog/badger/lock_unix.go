// SPDX-License-Identifier: Apache-2.0

//go:build unix

package badger

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile opens the file at path and locks it until unlock. Badger has a lock
// of its own, but by then we might have moved a live index aside.
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

// unlock gives the lock up at once. Closing alone does not, while a child
// that is being forked has a copy of the descriptor.
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// awaitBadger waits until Badger's lock on dir is free. Badger leaves it to
// close, and a child that is being forked may have a copy for some milliseconds.
// Without this wait the index would pass for damaged.
func awaitBadger(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 200 {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return unix.Flock(int(f.Fd()), unix.LOCK_UN)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return &os.PathError{Op: "flock", Path: dir, Err: err}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("index %s: %w", dir, ErrInUse)
}
