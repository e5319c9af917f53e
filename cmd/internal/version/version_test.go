// SPDX-License-Identifier: Apache-2.0

package version

import (
	"regexp"
	"testing"
)

// semver is the grammar of semver.org, without leading zeros.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func TestOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ tag, commit, want string }{
		{"", "", Release + "-dev"},
		{"", "0d2819049f79", Release + "-dev+0d2819049f79"},
		{"", "0d2819049f79.dirty", Release + "-dev+0d2819049f79.dirty"},
		{"v" + Release, "0d2819049f79", Release},
		{"v" + Release, "", Release},
		{"v0.0.1", "0d2819049f79", Release + "-dev+0d2819049f79"}, // the number was not changed with the tag
		{"(devel)", "", Release + "-dev"},
		{"v0.0.0-20261130224023-0d2819049f79", "0d2819049f79", Release + "-dev+0d2819049f79"},
	} {
		got := of(tt.tag, tt.commit)
		if got != tt.want {
			t.Errorf("of(%q, %q) = %q, want %q", tt.tag, tt.commit, got, tt.want)
		}
		if !semver.MatchString(got) {
			t.Errorf("of(%q, %q) = %q: not a semantic version", tt.tag, tt.commit, got)
		}
	}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(Release) {
		t.Errorf("Release is %q, want three numbers", Release)
	}
}

func TestLong(t *testing.T) {
	t.Parallel()
	i := Info{Version: "1.2.3", Go: "go1.26", Platform: "linux/arm64"}
	if got, want := i.Long(), "1.2.3 (go1.26, linux/arm64)"; got != want {
		t.Errorf("Long() = %q, want %q", got, want)
	}
	i.Commit = "abc"
	if got, want := i.Long(), "1.2.3 (commit abc, go1.26, linux/arm64)"; got != want {
		t.Errorf("Long() = %q, want %q", got, want)
	}
}
