// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFiles is the limit of open files that we ask for. Each open image is one,
// and each request to a registry another.
const maxFiles = 1 << 20

// fewFiles is what a person is told about: the index alone takes some dozens.
const fewFiles = 512

// harden prepares the process for holding secrets and many files.
func harden(log *slog.Logger, notice func(string)) {
	if err := forbidDumps(); err != nil {
		log.Warn("memory can be read by other processes", "err", err)
	}
	if n := raiseFiles(); n < fewFiles {
		text := fmt.Sprintf("at most %d files can be open, each open image and each request takes one: raise the limit (ulimit -n, LimitNOFILE= of a systemd unit)", n)
		log.Warn(text)
		notice(text)
	}
}

// raiseFiles returns how many files may be open now.
func raiseFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur >= maxFiles {
		return maxFiles
	}
	// Beyond the hard limit only root may go.
	for _, hard := range []uint64{max(limit.Max, maxFiles), limit.Max} {
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(hard, maxFiles), Max: hard}) == nil {
			return min(hard, maxFiles)
		}
	}
	return limit.Cur
}

// logLevel is Info, because a background process without a trace of when it
// started and what it refused helps nobody.
func (c *command) logLevel() slog.Level {
	if c.verbose > 0 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// maxLog is the size in bytes at which the log is put aside when a mount starts.
const maxLog = 10 << 20

// openLog opens the log of a background process. One older file is kept.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("log file: %w", err)
		}
	}
	// Without O_NONBLOCK opening a pipe that nobody reads would wait for ever.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("log file: %w", err)
	}
	info, statErr := os.Lstat(path)
	if err != nil || statErr != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		f.Close()
		return nil, usagef("log file: %s is a pipe or a socket: a mount must not wait for who reads it", path)
	}
	return f, nil
}

// redirect makes f the standard output and error: what the runtime prints when it
// dies must be found again, and whoever started us may wait for their pipes to
// close. The working directory must not keep a disk busy.
func redirect(f *os.File) error {
	for _, fd := range []int{1, 2} {
		if err := duplicate(int(f.Fd()), fd); err != nil {
			return fmt.Errorf("redirect the output: %w", err)
		}
	}
	return os.Chdir("/")
}

func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
