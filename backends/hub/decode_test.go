// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"bytes"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

func TestParseVersion(t *testing.T) {
	t.Parallel()
	md5, sha := strings.Repeat("0a", 16), strings.Repeat("1b", 32)
	for in, want := range map[string]string{
		md5: md5, "md5:" + md5: md5, "md5." + md5: md5, strings.ToUpper(md5): md5, sha: sha, "sha256:" + sha: sha,
		"": "", "sha256:" + md5: "", "md5:" + sha: "", md5[1:]: "", md5 + "0": "", "sha1:" + md5: "", "../" + md5: "", md5 + "\n": "",
	} {
		if got := parseVersion(in); got != want {
			t.Errorf("parseVersion(%q) = %q, want %q", in, got, want)
		}
	}
}

// Whatever an index says: what comes of it can be named, located below the data
// and found again.
func FuzzDecode(f *testing.F) {
	text, err := os.ReadFile("testdata/images.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"images":{"a/b":[{"tag":"x/y","version":"` + strings.Repeat("0a", 16) + `","size":1,"file":"a/../b.sif"}]},"collections":{"1":{"license":null}}}`))
	f.Add([]byte(`{"collections":{},"images":{"a/b":[{"tag":7},{"size":1e9}]}}`))
	c := &client{data: &url.URL{Scheme: "https", Host: "example.org", Path: "/shub"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		ix, err := decode(bytes.NewReader(text), maxIndex)
		if err != nil {
			return
		}
		for _, org := range ix.names {
			for _, r := range ix.orgs[org] {
				for b := range r.current {
					img := c.image(ix, r, b)
					_, again, err := ix.find(img.Ref)
					if err != nil || again != b || img.Ref.Check() != nil || checkName(img.Ref) != nil || backends.CheckDigest(img.Digest) != nil || img.Size <= 0 {
						t.Errorf("%+v: found %v, %v", img, again, err)
					}
					at, err := url.Parse(c.locate(b.file).String())
					if err != nil || at.Host != "example.org" || at.Path != "/shub/"+b.file || strings.Contains(at.Path, "/../") {
						t.Errorf("%q lies at %v, %v", b.file, at, err)
					}
				}
			}
		}
	})
}
