// SPDX-License-Identifier: Apache-2.0

package ranged

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

func TestVersionOf(t *testing.T) {
	t.Parallel()
	const date = "Thu, 29 Feb 2024 12:30:05 GMT"
	for _, c := range []struct {
		etag, modified string
		size           int64
		want           string
		header         http.Header // that asks for it
	}{
		{`"5f3e-1a"`, date, 9, `"5f3e-1a"`, http.Header{"If-Match": {`"5f3e-1a"`}}},
		{`"5f3e-1a"`, "", -1, `"5f3e-1a"`, http.Header{"If-Match": {`"5f3e-1a"`}}},
		{`W/"5f3e-1a"`, date, 9, "20240229T123005Z-9", http.Header{"If-Unmodified-Since": {date}}},
		{"", date, 9, "20240229T123005Z-9", http.Header{"If-Unmodified-Since": {date}}},
		{"", date, -1, "20240229T123005Z", http.Header{"If-Unmodified-Since": {date}}},
		{`W/"5f3e-1a"`, "yesterday", 9, `W/"5f3e-1a"`, nil},
		{"", "", 9, "", nil}, {`""`, "", 9, "", nil}, {`"a"b"`, "", 9, "", nil}, {"a", "", 9, "", nil}, {"*", "", 9, "", nil}, {`"a", "b"`, "", 9, "", nil},
		{`"` + strings.Repeat("a", maxTag) + `"`, "", 9, "", nil}, {`W/W/"a"`, "", 9, "", nil},
	} {
		h := http.Header{"Etag": {c.etag}, "Last-Modified": {c.modified}}
		version := VersionOf(h, c.size)
		if version != c.want {
			t.Errorf("%v of %d bytes is version %q, want %q", h, c.size, version, c.want)
		}
		header, err := Conditions(version)
		if diff := cmp.Diff(c.header, header); diff != "" || err != nil {
			t.Errorf("version %q is asked for with %v, %v, want %v", version, header, err, c.header)
		}
		if !SameVersion(h, c.size, version) || !SameVersion(http.Header{}, c.size, version) {
			t.Errorf("an answer with %v, or none, is not version %q", h, version)
		}
		if other := (http.Header{"Etag": {`"other"`}}); version != "" && SameVersion(other, c.size, version) {
			t.Errorf("%v is taken for version %q", other, version)
		}
	}
	for _, version := range []string{"sha256:" + strings.Repeat("0", 64), "no such version", "-", `"`, `W/`, "2024-1"} {
		if header, err := Conditions(version); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("version %q is asked for with %v, %v, want ErrChanged", version, header, err)
		}
	}
}
