// SPDX-License-Identifier: Apache-2.0

package statedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

// A Process is who holds a state directory.
type Process struct {
	PID    int       `json:"pid"`
	Host   string    `json:"host"`
	BootID string    `json:"boot_id,omitempty"`
	Start  time.Time `json:"start"`            // when it took the directory
	Socket string    `json:"socket,omitempty"` // where it listens, if it does
	Mount  string    `json:"mount,omitempty"`  // what it has mounted, if anything
	Names  string    `json:"names,omitempty"`  // how the names there are spelled: fsys.Names

	Version string `json:"version,omitempty"` // of the program
	// Ends is when a process that was told to end gives the directory up at the latest; of
	// a retired one, when it ends at the latest; zero before that.
	Ends time.Time `json:"ends,omitzero"`
}

// A HeldError says that another process has the state directory.
type HeldError struct {
	Path   string // of the state directory
	Holder Process
}

// Error names the holder as far as it is known.
func (e *HeldError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "state directory %s is held by ", e.Path)
	h := e.Holder
	if h.PID == 0 {
		b.WriteString("another process")
		return b.String()
	}
	fmt.Fprintf(&b, "pid %d on %s since %s", h.PID, h.Host, h.Start.Local().Format(time.DateTime))
	if h.Mount != "" {
		fmt.Fprintf(&b, ", mounted at %s", h.Mount)
	}
	if h.Socket != "" {
		fmt.Fprintf(&b, ", socket %s", h.Socket)
	}
	if !h.Ends.IsZero() {
		fmt.Fprintf(&b, "; it is stopping, and publishes what is being written, until %s at the latest", h.Ends.Local().Format(time.TimeOnly))
	}
	return b.String()
}

// Lock makes the state directory (0700) if it is missing and takes it. It is free
// again after Unlock, and when the process ends in whichever way.
//
// Errors: *HeldError; fs.ErrPermission for a directory of another user, and for
// one that is open to others and was made for something else; fs.ErrInvalid on a network filesystem; those of the local disk.
func Lock(path string) (*Dir, error) {
	// Badger makes its files 0644: it is the directory that keeps others out.
	if err := Private(path, 0o077); err != nil {
		return nil, err
	}
	if err := badger.CheckDir(path); err != nil {
		return nil, err
	}
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: f, self: self()}
	// A full disk keeps us from being named, not from holding the directory:
	// what is here can be served nevertheless.
	if err := d.write(d.self); err != nil && !errors.Is(err, errFull) {
		return nil, errors.Join(err, unlock(f))
	}
	return d, nil
}

func self() Process {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return Process{PID: os.Getpid(), Host: host, BootID: bootID(), Version: version.String(), Start: time.Now().Truncate(time.Second)}
}

// Private makes the directory path (0700) if it is missing, and makes sure that it
// is ours and that its mode has none of the bits in closed, which it takes away where
// that harms nobody.
//
// Errors: fs.ErrPermission for a directory of another user, and for one that is open
// to others and was made for something else; those of the local disk.
func Private(path string, closed fs.FileMode) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := ours(path, os.Getuid()); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&closed == 0 {
		return nil
	}
	if err := mayClose(path, info); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return err
	}
	if info, err = os.Stat(path); err == nil && info.Mode().Perm()&closed != 0 {
		err = fmt.Errorf("%w: %s stays open to others (mode %#o), as its file system has no modes: choose another directory",
			fs.ErrPermission, path, info.Mode().Perm())
	}
	return err
}

// mayClose says whether path, which is open to others, can be closed to them
// without harm: not "/" or "/tmp", which somebody has named by mistake, and not
// one where everybody could have put a spool or an index.
func mayClose(path string, info fs.FileInfo) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	// The log is opened before the lock is taken.
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "sregfs.log") })
	_, err = os.Lstat(lockPath(path))
	known := err == nil && info.Mode().Perm()&0o002 == 0
	if known || len(entries) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s is open to others (mode %#o) and not empty: choose another directory, or chmod 700 it",
		fs.ErrPermission, path, info.Mode().Perm())
}

// openLock takes the lock.
func openLock(path string) (*os.File, error) {
	f, err := lockFile(lockPath(path))
	if errors.Is(err, errLocked) {
		holder, _ := read(path) // unreadable: nobody is named
		return nil, &HeldError{Path: path, Holder: holder}
	}
	return f, err
}

// lockFile opens and locks a file. Others look by locking for an instant, which must not
// be taken for a holder: so it tries more than once. Errors: errLocked.
func lockFile(name string) (*os.File, error) {
	for try := 1; ; try++ {
		f, err := tryLock(name)
		if !errors.Is(err, errLocked) || try == 5 {
			return f, err
		}
		time.Sleep(time.Duration(try) * 5 * time.Millisecond)
	}
}

func tryLock(name string) (*os.File, error) {
	f, err := backends.OpenRegular(name, os.O_RDWR|os.O_CREATE|backends.NoFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, exclusive); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !samePath(f) {
		return nil, errors.Join(errLocked, unlock(f))
	}
	return f, nil
}

// samePath reports whether f is still what its name stands for: it may have been
// deleted between open and lock.
func samePath(f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(mine, named)
}

// Announce lets others find this process: by the socket it listens at, and the
// mount point with the spelling of its names, all "" if there is none. It is not safe
// for concurrent use.
func (d *Dir) Announce(socket, mount, names string) error {
	d.self.Socket, d.self.Mount, d.self.Names = socket, mount, names
	return d.write(d.self)
}

// AnnounceEnd tells others that this process gives the directory up, at that time at
// the latest: whoever wants it may wait. It is not safe for concurrent use.
func (d *Dir) AnnounceEnd(latest time.Time) error {
	d.self.Ends = latest.Truncate(time.Second)
	return d.write(d.self)
}

func (d *Dir) write(p Process) error { return writeTo(d.lock, p) }

// writeTo replaces the content of a file by one write of a fixed size: others read it
// at any time, and it takes no new block of a full disk.
func writeTo(f *os.File, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if n := textSize - 1 - len(text); n > 0 {
		text = append(text, bytes.Repeat([]byte{' '}, n)...)
	}
	if _, err := f.WriteAt(append(text, '\n'), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text) + 1))
}

// textSize is the least size of the lock file, in bytes: more than most
// holders take to describe.
const textSize = 1024

const maxLockFile = 64 << 10

// Unlock gives the directory up. A second Unlock does nothing.
func (d *Dir) Unlock() error {
	if d.lock == nil {
		return nil
	}
	err := errors.Join(d.write(Process{}), unlock(d.lock))
	d.lock = nil
	return err
}

// Holder returns the process that holds the state directory. What a process that
// is gone has left in the lock file does not count. A process that is about to
// take the directory may not be named yet: its PID is 0.
//
// Errors: fs.ErrNotExist if nobody holds it; those of the local disk.
func Holder(path string) (Process, error) {
	f, err := backends.OpenRegular(lockPath(path), os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return Process{}, err
	}
	err = flock(f, shared)
	if err == nil {
		return Process{}, errors.Join(backends.NotFound("nobody holds %s", path), unlock(f))
	}
	f.Close()
	if !errors.Is(err, errLocked) {
		return Process{}, fmt.Errorf("lock %s: %w", lockPath(path), err)
	}
	return read(path)
}

// Last returns the process that held the state directory last, whether it still does or
// is gone: it may have left its mount behind. One that ended well is named no more.
//
// Errors: fs.ErrNotExist if nobody ever did; those of the local disk.
func Last(path string) (Process, error) { return read(path) }

// read returns what the lock file says, true or not.
func read(path string) (Process, error) {
	text, err := backends.ReadRegular(lockPath(path), backends.NoFollow, maxLockFile)
	if err != nil {
		return Process{}, err
	}
	var p Process
	if err := json.Unmarshal(text, &p); err != nil {
		return Process{}, nil // being written
	}
	return p, nil
}

// bootID tells boots of a machine apart; "" where that is not known.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
