// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// maxLog is the size in bytes at which a log is put aside. One older file is kept.
const maxLog = 10 << 20

// A logFile is the log of a background process. Several may append to one: whoever
// finds it too large renames it, and the others notice that at their next line.
// For concurrent use.
type logFile struct {
	path string
	max  int64 // bytes

	mu    sync.Mutex // guards the fields below
	file  *os.File
	std   bool // it is the standard output and error, too
	stays bool // it cannot be renamed
}

// openLog opens the log at path, whose directory is made.
func openLog(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	f, err := openAppend(path)
	if err != nil {
		return nil, err
	}
	l := &logFile{path: path, max: maxLog, file: f}
	l.rotate()
	return l, nil
}

func openAppend(path string) (*os.File, error) {
	// Without O_NONBLOCK opening a pipe that nobody reads would wait for ever. A device
	// is welcome.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("log file: %w", err)
	}
	info, statErr := os.Lstat(path)
	if err != nil || statErr != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		f.Close()
		return nil, usagef("log file: %s is a pipe or a socket: a mount must not wait for its reader", path)
	}
	return f, nil
}

// Write implements io.Writer. Each line is one write, which those of other
// processes do not mix with.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.file.Write(p)
	l.rotate()
	return n, err
}

// rotate begins a new file if this one is too large, or is not the log any more.
// Called with l.mu held. An error leaves the file as it is.
func (l *logFile) rotate() {
	info, err := l.file.Stat()
	if err != nil || info.Size() <= l.max || l.stays || !info.Mode().IsRegular() {
		return
	}
	// Closing gives the lock up. Who does not get it looks again at the next line.
	if unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if named, err := os.Lstat(l.path); err == nil && os.SameFile(named, info) {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			l.stays = true
			_ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
			return
		}
	}
	if l.replace() != nil {
		_ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
	}
}

// replace goes on with the file that has the log's name now. Called with l.mu held.
func (l *logFile) replace() error {
	next, err := openAppend(l.path)
	if err != nil {
		return err
	}
	old := l.file
	l.file = next
	if l.std {
		_ = l.duplicateLocked()
	}
	_ = unix.Flock(int(old.Fd()), unix.LOCK_UN) // a copy of the descriptor may be a child's
	return old.Close()
}

// reopen goes on with the file that has the log's name now, where that is another one: logrotate
// has renamed it. (Its copytruncate needs no word from us: we append.) nil has no file.
func (l *logFile) reopen() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, err := l.file.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(l.path); err == nil && os.SameFile(named, mine) {
		return nil
	}
	return l.replace()
}

// redirect makes the log the standard output and error: what the runtime prints when
// it dies must be found again, and whoever started us may wait for their pipes to
// close. The working directory must not keep a disk busy.
func (l *logFile) redirect() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.std = true
	if err := l.duplicateLocked(); err != nil {
		return err
	}
	return os.Chdir("/")
}

func (l *logFile) duplicateLocked() error {
	for _, fd := range []int{1, 2} {
		if err := duplicate(int(l.file.Fd()), fd); err != nil {
			return fmt.Errorf("redirect the output: %w", err)
		}
	}
	return nil
}

// Close closes the file; nil has none.
func (l *logFile) Close() {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.file.Close()
	}
}
