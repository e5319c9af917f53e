// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

type umaskKey struct{}

// WithUmask returns a context for whoever calls from another process: the files and
// directories that a verb makes for him have the permissions that his umask leaves.
// Otherwise it is that of this process.
func WithUmask(ctx context.Context, umask fs.FileMode) context.Context {
	return context.WithValue(ctx, umaskKey{}, umask&fs.ModePerm)
}

// modeFor returns the mode of a new file that can be run as a program, or directory.
func modeFor(ctx context.Context) fs.FileMode {
	umask, ok := ctx.Value(umaskKey{}).(fs.FileMode)
	if !ok {
		umask = Umask()
	}
	return fs.ModePerm &^ umask
}

// Umask returns the one of this process; 022 where the system does not tell it.
// umask(2) tells it by changing it, for all threads.
func Umask() fs.FileMode {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(text), 8, 9); err == nil {
				return fs.FileMode(n)
			}
		}
	}
	return 0o022
}
