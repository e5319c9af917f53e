// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Whatever stands in the file of facts, no digest is told that is not the file's.
func TestFacts_damaged(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	img := push(t, c, ref, source("text"))
	path := filepath.Join(root, factsPath("c/i"))
	line, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := strings.TrimSpace(string(line))
	other := strings.Replace(good, "sha256:", "sha256:0", 1)
	for name, tt := range map[string]struct{ text, digest string }{
		"whole":       {good, img.Digest},
		"after torn":  {good[:30] + "\n" + good + "\n", img.Digest},
		"before torn": {good + "\n" + good[:len(good)-3], img.Digest},
		"torn":        {good[:len(good)-3], ""},
		"zeros":       {"\x00\x00\x00", ""},
		"bad digest":  {other, ""},
		"bad size":    {strings.Replace(good, " 4 ", " 5 ", 1), ""},
		"not a size":  {strings.Replace(good, " 4 ", " 4x ", 1), ""},
		"long line":   {strings.Repeat("x", 1<<20) + "\n" + good, ""},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := (&client{path: root}).Stat(t.Context(), ref)
		if err != nil || got.Digest != tt.digest || got.Version != img.Version {
			t.Errorf("%s: %+v, %v, want digest %q", name, got, err, tt.digest)
		}
	}
}

// The facts of what is gone go too, in time.
func TestFacts_forgotten(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	keep := push(t, c, backends.Ref{Collection: "c", Name: "i", Tag: "keep"}, source("keep"))
	for n := range 40 {
		img := push(t, c, backends.Ref{Collection: "c", Name: "i", Tag: fmt.Sprint(n)}, source(fmt.Sprint(n)))
		if err := c.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(root, factsPath("c/i"))
	text, err := os.ReadFile(path)
	if n := strings.Count(string(text), "sha256:"); err != nil || n > 25 {
		t.Errorf("%d facts for one image, %v", n, err)
	}
	if got, err := c.Stat(t.Context(), keep.Ref); err != nil || got.Digest != keep.Digest {
		t.Errorf("the image that stays: %+v, %v", got, err)
	}
	if err := c.Delete(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("facts of a directory that is gone: %v", err)
	}
}

func FuzzParseFact(f *testing.F) {
	f.Add(fact{file: "t@x.sif", digest: "sha256:" + strings.Repeat("0", 64), size: 4, modTime: time.Now().UnixNano(), inode: 9}.line())
	f.Add("md5:" + strings.Repeat("a", 32) + " 1 2 3 a b")
	f.Fuzz(func(t *testing.T, line string) {
		got, ok := parseFact(line)
		if !ok {
			return
		}
		if again, ok := parseFact(got.line()); !ok || again != got {
			t.Errorf("%q is %+v, written as %q, read as %+v", line, got, got.line(), again)
		}
	})
}
