// SPDX-License-Identifier: Apache-2.0

// Package version knows which release this is. It is not the protocol's number:
// that is control.Protocol.
package version

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker, see the Makefile.
var version string

// String returns the release, or the revision that "go install" recorded.
func String() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// Long returns what a bug report needs: the release, Go's, and the system.
func Long() string {
	return String() + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
