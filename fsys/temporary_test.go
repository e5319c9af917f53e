// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
)

// A bare name is an image's, whose tag is latest, if the bytes are one.
func TestBareName(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("tool", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("tool:latest", content)
	for name, test := range map[string]struct {
		content []byte
		want    error
	}{"notes": {[]byte("no image"), fs.ErrInvalid}, "half": {content[:20000], backends.ErrCorrupt}} {
		file := b.create(name, test.content)
		b.flush(file, copier, test.want)
		file.Close(t.Context())
		b.published(name+":latest", nil)
		if b.lookup(name, copier) != nil {
			t.Errorf("%s is shown", name)
		}
	}
	for _, name := range []string{"tool.SIF", "README.md", "tool.sif.gz"} {
		if _, _, err := b.dir.Create(t.Context(), name, 0o644, copier, 0); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("creating %s: %v, want %v", name, err, fs.ErrInvalid)
		}
	}
	file = b.create(".tmp.1", content)
	file.Close(t.Context())
	if err := b.dir.Rename(t.Context(), ".tmp.1", b.dir, "README.md", 0); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("renaming to README.md: %v, want %v", err, fs.ErrInvalid)
	}
	if err := b.dir.Rename(t.Context(), ".tmp.1", b.dir, "renamed", 0); err != nil {
		t.Error(err)
	}
	b.published("renamed:latest", content)
}

// Files with temporary names are in the tree of the next process too, where they
// were, tools' directories with them.
func TestTemporary_restart(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	outer := b.dir
	inner, err := outer.Mkdir(t.Context(), ".~tmp~")
	if err != nil {
		t.Fatal(err)
	}
	deep, err := inner.Mkdir(t.Context(), "a:b")
	if err != nil {
		t.Fatal(err)
	}
	for i, dir := range []*fsys.Dir{outer, inner, deep} {
		b.dir = dir
		b.create([]string{".out.AbC123", "in:1.sif", "x"}[i], content).Close(t.Context())
	}
	size := int64(len(content) + 1)
	if draft, ok := mustLookup(t, outer, ".out.AbC123").(*fsys.Draft); !ok || draft.SetAttr(t.Context(), fsys.AttrChange{Size: &size}) != nil {
		t.Error("a closed file cannot be given another size")
	}
	for _, state := range b.states() {
		if state != spool.Kept {
			t.Errorf("in the journal: %v", b.states())
		}
	}

	b.dir = mustLookup(t, mustLookup(t, fsys.New(b.Catalog, b.Uploads, fsys.Options{}).Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	outer = b.dir
	if _, ok := b.lookup(".out.AbC123", stranger).(*fsys.Draft); !ok {
		t.Error("what was closed under a temporary name is not there")
	}
	inner = mustLookup(t, outer, ".~tmp~").(*fsys.Dir)
	deep = mustLookup(t, inner, "a:b").(*fsys.Dir)
	if err := outer.Rmdir(t.Context(), ".~tmp~"); !errors.Is(err, fsys.ErrNotEmpty) {
		t.Errorf("removing a directory with files: %v, want %v", err, fsys.ErrNotEmpty)
	}
	if err := inner.Rename(t.Context(), "in:1.sif", outer, "in:1.sif", 0); err != nil {
		t.Fatal(err)
	}
	b.published("in:1", content)
	if err := deep.Rename(t.Context(), "x", outer, "x", 0); err != nil {
		t.Fatal(err)
	}
	b.published("x:latest", content)
	if node := b.lookup(".~tmp~", stranger); node != nil {
		t.Errorf("a directory that was made before the restart, and is empty, is there")
	}
	id := b.Spool.Drafts()[0].ID
	if err := b.Uploads.Discard(t.Context(), id); err != nil {
		t.Errorf("discarding a file that nobody writes: %v", err)
	}
	if b.lookup(".out.AbC123", stranger) != nil {
		t.Error("what was discarded is still there")
	}
	for e, err := range outer.List(t.Context()) {
		if err != nil || e.Name[0] == '.' {
			t.Errorf("listed: %q, %v", e.Name, err)
		}
	}
}

// A tool's directory is a directory like any other.
func TestToolDir(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	outer := b.dir
	dir, err := outer.Mkdir(t.Context(), ".rsync-partial")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outer.Mkdir(t.Context(), ".rsync-partial"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("making it again: %v, want %v", err, fs.ErrExist)
	}
	b.dir = dir
	file := b.create("old:1.sif", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("old:1", b.Service.Get("c/old:1"))
	names := func(d *fsys.Dir) (names []string) {
		for e, err := range d.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, e.Name)
		}
		return names
	}
	if got := names(outer); len(got) != 2 {
		t.Errorf("beside it: %q", got)
	}
	if got := names(dir); len(got) != 1 || got[0] != "old:1.sif" {
		t.Errorf("in it: %q", got)
	}
	if err := dir.Rename(t.Context(), "old:1.sif", outer, "old:1.sif", 0); !errors.Is(err, backends.ErrNotAllowed) {
		t.Errorf("replacing an image: %v, want %v", err, backends.ErrNotAllowed)
	}
	if err := dir.Unlink(t.Context(), "old:1.sif"); err != nil {
		t.Error(err)
	}
	if err := outer.Rmdir(t.Context(), ".rsync-partial"); err != nil {
		t.Error(err)
	}
	if got := names(outer); len(got) != 1 {
		t.Errorf("afterwards: %q", got)
	}
}
