// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cmd/internal/secrecy"
)

// maxFiles is the limit of open files that we ask for. Each open image is one,
// and each request to a registry another.
const maxFiles = 1 << 20

// fewFiles is what a person is told about: the index alone takes some dozens.
const fewFiles = 512

// harden prepares the process for holding secrets and many files.
func harden(log *slog.Logger, notice func(string)) {
	if err := secrecy.Hide(); err != nil {
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

func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
