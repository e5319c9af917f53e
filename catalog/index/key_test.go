// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// An architecture or a revision is that of a tag; a digest means the same bytes under all.
func TestVersionKey(t *testing.T) {
	t.Parallel()
	ref := func(tag, version string) backends.Ref {
		return backends.Ref{Collection: "c", Name: "tool", Tag: tag, Version: version}
	}
	digest := SHA256Prefix + strings.Repeat("0", 64)
	for _, version := range []string{"arm64", "015a2b", "1", digest} {
		same := bytes.Equal(VersionKey("lab", ref("1", version)), VersionKey("lab", ref("2", version)))
		if same != (version == digest) {
			t.Errorf("tool:1@%s and tool:2@%[1]s have one key: %t", version, same)
		}
		remote, got, ok := CutVersionKey(VersionKey("lab", ref("1", version)))
		if want := ref("1", version); !ok || remote != "lab" || version != digest && got != want || got.Version != version {
			t.Errorf("CutVersionKey = %s, %s, %t, want lab, %s", remote, got, ok, want)
		}
	}
	old := appendPart(VersionPrefix("lab", ref("", "")), "arm64")
	if _, _, ok := CutVersionKey(old); ok {
		t.Error("a key that does not say of which tag is taken")
	}
}
