// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"fmt"
	"io"
	"log/slog"
	"math"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cmd/internal/secrecy"
)

// fewFiles is what a person is told about: the index alone takes some dozens.
const fewFiles = 512

// harden prepares the process for holding secrets and many files.
func harden(log *slog.Logger, notice func(string)) {
	if err := secrecy.Hide(); err != nil {
		log.Warn("memory can be read by other processes", "err", err)
	}
	if n := mostFiles(); n < fewFiles {
		text := fmt.Sprintf("at most %d files can be open, each open image and each request takes one: raise the limit (ulimit -n, LimitNOFILE= of a systemd unit)", n)
		log.Warn(text)
		notice(text)
	}
}

// mostFiles returns how many files may be open: the hard limit, to which Go's runtime
// raises the soft one when a program starts. The programs that we start get the soft
// one that we were given (package syscall, rlimit.go), unless somebody here sets it:
// some close all descriptors up to it, or use select(2).
func mostFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64
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

func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
