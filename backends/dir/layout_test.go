// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// The layouts that sregistry has written over the years, and what people do.
func TestLayouts(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("ab", 32)
	tests := []struct{ path, collection, image string }{
		{"library/ubuntu/latest.sif", "library", "library/ubuntu:latest"},
		{"vsoch/hello-world/v1@abc.sif", "vsoch", "vsoch/hello-world:v1"},
		{"vsoch/hello/2.0@" + hex + ".sif", "vsoch", "vsoch/hello:2.0"},
		{"vsoch/old/1.simg", "vsoch", "vsoch/old:1"},
		{"vsoch/older/1.img", "vsoch", "vsoch/older:1"},
		{"a/b/c/1@x.sif", "a/b", "a/b/c:1"},
		{"vsoch/hello:1.0@d41d8cd98f00b204e9800998ecf8427e.simg", "vsoch", "vsoch/hello:1.0"},
		{"vsoch/hello:1.1.img", "vsoch", "vsoch/hello:1.1"},
		{"vsoch-hello:tag@d41d8cd98f00b204e9800998ecf8427e.simg", "", "/vsoch-hello:tag"},
		{"vsoch-hello-latest@d41d8cd98f00b204e9800998ecf8427e.simg", "", "/vsoch-hello-latest:latest"},
		{"expfactory-master.simg", "", "/expfactory-master:latest"},
		{"tools/samtools.sif", "tools", "tools/samtools:latest"},
		{"up%2Fstairs/100%/x@y@z.sif", "up%2Fstairs", "up%252Fstairs/100%25:x"},
		{"C/Mixed.Case/V1.0.sif", "C", "C/Mixed.Case:V1.0"},
		{"w/with:two:colons.sif", "w", "w/with:two%3Acolons"},
		{"w/x/:1.0.sif", "w", "w/x:%3A1.0"},
	}
	c, root := newStore(t)
	for _, tt := range tests {
		write(t, root, tt.path, []byte(tt.path), time.Time{})
	}
	for _, tt := range tests {
		ref, err := backends.ParseRef(tt.image)
		if err != nil {
			t.Fatal(err)
		}
		img, err := c.Stat(t.Context(), ref)
		if err != nil {
			t.Errorf("Stat(%s) for %s: %v", ref, tt.path, err)
			continue
		}
		if want := "file://"; !strings.HasPrefix(img.URL, want) || img.Size != int64(len(tt.path)) {
			t.Errorf("Stat(%s) found %s, want %s", ref, img.URL, tt.path)
		}
		if got := list(t, c, ref.Collection); !slices.Contains(got, img.Ref.String()) {
			t.Errorf("List(%q) = %q lacks %s", ref.Collection, got, img.Ref)
		}
	}
}

func TestIgnored(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	for _, path := range []string{"README.md", ".hidden.sif", "c/i/.1.sif.AbC123", "c/i/1.sif.part", "c/i/1", ".git/x/y/1.sif", ".sregfs/a/b/c.sif", "c/d/e/notes.txt"} {
		write(t, root, path, []byte("x"), time.Time{})
	}
	if err := os.MkdirAll(filepath.Join(root, "c/i/dir.sif"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "c/i/broken.sif")); err != nil {
		t.Fatal(err)
	}
	if got := list(t, c, ""); !slices.Equal(got, []string{"c/"}) {
		t.Errorf("List(root) = %q", got)
	}
	if got := list(t, c, "c"); len(got) != 0 {
		t.Errorf("List(c) = %q", got)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	write(t, root, "c/i/t@"+sum([]byte("one"))+".sif", []byte("one"), at)
	write(t, root, "c/i/t@"+sum([]byte("three"))+".sif", []byte("three"), at.Add(2*time.Hour))
	write(t, root, "c/i/t@"+sum([]byte("seventh"))+".sif", []byte("seventh"), at.Add(time.Hour))
	write(t, root, "c/i:t@d41d8cd98f00b204e9800998ecf8427e.simg", []byte("flat and newer"), at.Add(9*time.Hour))
	ref := backends.Ref{Collection: "c", Name: "i", Tag: "t"}
	for version, want := range map[string]int64{
		"": 5, sum([]byte("one")): 3, "sha256:" + sum([]byte("seventh")): 7, "d41d8cd98f00b204e9800998ecf8427e": 14,
	} {
		ref.Version = version
		img, err := c.Stat(t.Context(), ref)
		if err != nil || img.Size != want {
			t.Errorf("Stat(%s) = size %d, %v, want %d", ref, img.Size, err, want)
		}
		ref.Version = img.Version
		if again, err := c.Stat(t.Context(), ref); err != nil || again.Size != want {
			t.Errorf("Stat(%s) = %+v, %v", ref, again, err)
		}
	}
	if diff := cmp.Diff([]string{"c/i:t"}, list(t, c, "c")); diff != "" {
		t.Error(diff)
	}
	// The version alone decides, whatever the tag.
	ref.Tag, ref.Version = "other", sum([]byte("one"))
	if img, err := c.Stat(t.Context(), ref); err != nil || img.Ref.Tag != "t" {
		t.Errorf("Stat(%s) = %s, %v", ref, img.Ref, err)
	}
}

func newStore(t *testing.T) (*client, string) {
	t.Helper()
	root := t.TempDir()
	b, err := Open(t.Context(), backends.Env{Remote: "local", Config: map[string]any{"path": root}})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*client), root
}

func list(t *testing.T, c *client, collection string) []string {
	t.Helper()
	names := map[string]bool{}
	for e, err := range c.List(t.Context(), collection) {
		if err != nil {
			t.Fatalf("List(%q): %v", collection, err)
		}
		name := e.Image.Ref.String()
		if e.Collection != "" {
			name = e.Collection + "/"
		}
		if names[name] {
			t.Errorf("List(%q) tells %s twice", collection, name)
		}
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"t@v.sif", "i:t.simg", "%41.img", "a@b@c.sif", ":.sif", "@.sif", "100%.sif"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, base string) {
		p, ok := parse(base, nil)
		if !ok {
			return
		}
		if p.tag == "" {
			t.Errorf("parse(%q) has no tag", base)
		}
		// What would be written for it is read as it.
		ref := backends.Ref{Collection: "c", Name: "i", Tag: p.tag}
		if p.image != "" {
			ref = backends.Ref{Name: p.image, Tag: p.tag}
		}
		path := layout(ref, "00", ".sif")
		again, ok := parse(path[strings.LastIndexByte(path, '/')+1:], nil)
		if !ok || again.tag != p.tag || again.image != p.image {
			t.Errorf("parse(%q) = %+v, written as %q, read as %+v", base, p, path, again)
		}
	})
}
