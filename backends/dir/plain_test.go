// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// squashfs is enough of one to be given out.
const squashfs = "hsqs, and the rest of it"

// listed returns the listing of a collection with the extension of each.
func listed(t *testing.T, c *client, collection string) (names []string) {
	t.Helper()
	for e, err := range c.List(t.Context(), collection) {
		if err != nil {
			t.Fatal(err)
		}
		name := e.Collection + "/"
		if e.Collection == "" {
			name = e.Image.Ref.String() + " " + e.Image.Format
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func newPlain(t *testing.T, extensions ...any) (*client, string) {
	t.Helper()
	root := t.TempDir()
	b, err := Open(t.Context(), backends.Env{Config: map[string]any{"path": root, "extensions": extensions}, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*client), root
}

// The folders of the largest public collection: files without an extension in folders of
// two letters, links to all of them in one, and images that somebody unpacked.
func TestPlain(t *testing.T) {
	t.Parallel()
	c, root := newPlain(t)
	write(t, root, "s/a/samtools:1.20--h50ea8bc_1", []byte(squashfs), time.Time{})
	for _, path := range []string{"all/README", "all/notes", "all/index:1.html", "all/x:1.part", "all/.hidden:1", "all/x:1~", "a/d/unpacked:2/bin/tool:1", "a/d/unpacked:2/opt/x.sif", "unpacked:3/x.sif"} {
		write(t, root, path, []byte(squashfs), time.Time{})
	}
	for _, dir := range []string{"a/d/unpacked:2", "unpacked:3"} {
		if err := os.Mkdir(filepath.Join(root, dir, ".singularity.d"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../s/a/samtools:1.20--h50ea8bc_1", filepath.Join(root, "all/samtools:1.20--h50ea8bc_1")); err != nil {
		t.Fatal(err)
	}
	for collection, want := range map[string][]string{
		"": {"a/", "all/", "s/"}, "all": {"all/samtools:1.20--h50ea8bc_1 plain"}, "s/a": {"s/a/samtools:1.20--h50ea8bc_1 plain"},
		"s": {"s/a/"}, "a": nil, "a/d": nil,
	} {
		if diff := cmp.Diff(want, listed(t, c, collection)); diff != "" {
			t.Errorf("%q: %s", collection, diff)
		}
	}
	for _, collection := range []string{"all", "s/a"} {
		img, err := c.Stat(t.Context(), backends.Ref{Collection: collection, Name: "samtools", Tag: "1.20--h50ea8bc_1"})
		if err != nil || img.Size != int64(len(squashfs)) || img.Format != backends.FormatPlain {
			t.Fatalf("%+v, %v", img, err)
		}
		f, err := c.OpenFile(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if img, err := c.Stat(t.Context(), backends.Ref{Collection: "a/d", Name: "unpacked", Tag: "2"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory is the image %+v, %v", img, err)
	}
	for _, err := range c.List(t.Context(), "a/d/unpacked:2") {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory of an image: %v", err)
		}
	}
}

// With the setting, names without a tag count too.
func TestPlain_extensions(t *testing.T) {
	t.Parallel()
	c, root := newPlain(t, "", ".sqsh")
	for _, path := range []string{"c/samtools-1.20", "c/tool", "c/x.sqsh", "c/old.sif", "c/bwa:0.7", "c/README", "c/notes.txt", "c/i/2.0"} {
		write(t, root, path, []byte(squashfs), time.Time{})
	}
	want := []string{"c/bwa:0.7 plain", "c/i:2.0 plain", "c/old:latest sif", "c/samtools-1.20:latest bare", "c/tool:latest bare", "c/x.sqsh:latest bare"}
	if diff := cmp.Diff(want, listed(t, c, "c")); diff != "" {
		t.Error(diff)
	}
	if _, err := Open(t.Context(), backends.Env{Config: map[string]any{"path": root, "extensions": []any{"sqsh"}}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("extensions = [\"sqsh\"]: %v, want %v", err, fs.ErrInvalid)
	}
}

// What is found to be no image is left out of the listings that follow, also of another
// process, until somebody writes to it. One with an extension stays.
func TestPlain_noImage(t *testing.T) {
	t.Parallel()
	c, root := newPlain(t)
	for _, path := range []string{"c/good:1", "c/text:1", "c/text.sif"} {
		content := squashfs
		if path != "c/good:1" {
			content = "no image at all"
		}
		write(t, root, path, []byte(content), time.Time{})
	}
	all := []string{"c/good:1 plain", "c/text:1 plain", "c/text:latest sif"}
	if diff := cmp.Diff(all, listed(t, c, "c")); diff != "" {
		t.Fatal(diff)
	}
	old := time.Now().Add(-time.Hour) // by the clock of files; that of their change cannot be set
	for _, tag := range []string{"1", "latest"} {
		ref := backends.Ref{Collection: "c", Name: "text", Tag: tag}
		img, err := c.Stat(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := c.OpenFile(t.Context(), img); !errors.Is(err, backends.ErrNotImage) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s opens: %v, %v", ref, f, err)
		}
	}
	// It was written a moment ago, and may be written again in the same one.
	if diff := cmp.Diff(all, listed(t, c, "c")); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(root, "c/text:1"))
	if err != nil {
		t.Fatal(err)
	}
	c.digests.add(fileStateOf(info), time.Now().Add(time.Minute), noImage)
	want := []string{"c/good:1 plain", "c/text:latest sif"}
	if diff := cmp.Diff(want, listed(t, c, "c")); diff != "" {
		t.Error(diff)
	}
	if img, err := c.Stat(t.Context(), backends.Ref{Collection: "c", Name: "text", Tag: "1"}); err != nil || img.Digest != "" {
		t.Errorf("it is not there: %+v, %v", img, err)
	}
	again := &client{path: c.path}
	again.digests.path = c.digests.path
	if diff := cmp.Diff(want, listed(t, again, "c")); diff != "" {
		t.Errorf("another process: %s", diff)
	}
	write(t, root, "c/text:1", []byte(squashfs), old)
	if diff := cmp.Diff(all, listed(t, again, "c")); diff != "" {
		t.Errorf("written again: %s", diff)
	}
}

// An opening is what notes it.
func TestPlain_noted(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for a file to be old enough")
	}
	c, root := newPlain(t)
	write(t, root, "c/text:1", []byte("no image at all"), time.Time{})
	img, err := c.Stat(t.Context(), backends.Ref{Collection: "c", Name: "text", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for len(listed(t, c, "c")) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("it is listed still")
		}
		if _, err := c.OpenFile(t.Context(), img); !errors.Is(err, backends.ErrNotImage) {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// BenchmarkPlain lists a directory of 120,000 images without an extension, as the largest
// public collection has.
func BenchmarkPlain(b *testing.B) {
	root := b.TempDir()
	const images = 120_000
	if err := os.Mkdir(filepath.Join(root, "all"), 0o755); err != nil {
		b.Fatal(err)
	}
	first := filepath.Join(root, "first")
	if err := os.WriteFile(first, []byte(squashfs), 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range images {
		name := filepath.Join(root, "all", fmt.Sprintf("bioconductor-tool-%06d:1.20--h50ea8bc_1", i))
		if i%60_000 == 59_999 || os.Link(first, name) != nil { // a file has so many names at most
			if err := os.WriteFile(name, []byte(squashfs), 0o755); err != nil {
				b.Fatal(err)
			}
			first = name
		}
	}
	c := &client{path: root}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range c.List(b.Context(), "all") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != images {
			b.Fatal(n)
		}
	}
}
