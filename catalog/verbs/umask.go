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

// WithUmask returns a context for a caller in another process: the files and directories
// that a verb makes have the permissions that this umask leaves. Otherwise it is the
// umask of this process.
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

// Umask returns the umask of this process; 022 if the system does not say. umask(2) cannot
// be used: it returns the umask by changing it, for all threads.
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
