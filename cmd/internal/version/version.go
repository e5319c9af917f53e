// SPDX-License-Identifier: Apache-2.0

// Package version knows which release this is. It is not the protocol's number:
// that is control.Protocol.
package version

import (
	"runtime"
	"runtime/debug"
)

// Release is the release that is being worked on, or was just made: a semantic version.
// A build is called so only from the commit with the tag "v" + Release; any other is on
// the way there, "-dev". After a release the next one's number comes here.
const Release = "0.14.0"

// These are set by the linker, see the Makefile.
var (
	tag    string // of the commit, "" if it has none
	commit string // abbreviated; it ends in ".dirty" where files were changed since
)

// An Info is what a program can want to know of a build.
type Info struct {
	Version  string `json:"version"`          // semantic
	Commit   string `json:"commit,omitempty"` // where it is known
	Go       string `json:"go"`               // the toolchain's version
	Platform string `json:"platform"`         // as "linux/amd64"
}

// Build returns what is known of this build.
func Build() Info {
	tag, commit := tag, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		if tag == "" {
			tag = info.Main.Version // of "go install …@v1.2.3"
		}
		for _, s := range info.Settings {
			if commit == "" && s.Key == "vcs.revision" {
				commit = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return Info{Version: of(tag, commit), Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
}

// of returns the semantic version of a build from that commit.
func of(tag, commit string) string {
	switch {
	case tag == "v"+Release:
		return Release
	case commit == "":
		return Release + "-dev"
	}
	return Release + "-dev+" + commit
}

// String returns the version.
func String() string { return Build().Version }

// Long returns what a bug report needs: the version, the commit, Go's version, and the system.
func (i Info) Long() string {
	commit := ""
	if i.Commit != "" {
		commit = "commit " + i.Commit + ", "
	}
	return i.Version + " (" + commit + i.Go + ", " + i.Platform + ")"
}
