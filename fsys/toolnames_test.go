// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// A directory in which another program's names are looked up shows nothing, and takes
// nothing; what is found there is read only.
func TestFinders(t *testing.T) {
	t.Parallel()
	var w *fsystest.World
	find := func(ctx context.Context, name string) (string, backends.Image, error) {
		if name != "made-up.img" {
			return "", backends.Image{}, fs.ErrNotExist
		}
		img, err := w.Catalog.Lookup(ctx, "local", backends.Ref{Collection: "c", Name: "x", Tag: "1"})
		return "local", img, err
	}
	w = fsystest.New(t, fsystest.Options{FS: fsys.Options{Finders: map[string]fsys.FindFunc{".tool": find}}})
	ctx, who := t.Context(), fsys.Caller{}
	local := mustLookup(t, w.FS.Root(), "local").(*fsys.Dir)
	c, err := local.Mkdir(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	_, file, err := c.Create(ctx, "x:1.sif", 0o644, who, fsys.Write)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(ctx, fsystest.Image(8192, 1), 0); err != nil {
		t.Fatal(err)
	}
	err = file.Flush(ctx, who)
	file.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for e := range w.FS.Root().List(ctx) {
		if strings.HasPrefix(e.Name, ".") {
			t.Errorf("%s is listed", e.Name)
		}
	}
	tool := mustLookup(t, w.FS.Root(), ".tool").(*fsys.Dir)
	for e, err := range tool.List(ctx) {
		t.Errorf("it lists %q, %v", e.Name, err)
	}
	img := mustLookup(t, tool, "made-up.img").(*fsys.Image)
	if mode := img.Attr().Mode; mode.Perm() != 0o555 {
		t.Errorf("mode %v, want 0555", mode)
	}
	if same := mustLookup(t, c, "x:1.sif").Attr(); same.Size != img.Attr().Size || same.Ino == img.Attr().Ino {
		t.Errorf("attributes %v, those of the image are %v", img.Attr(), same)
	}
	for _, name := range []string{"other.img", "", "..", strings.Repeat("x", 255)} {
		if _, err := tool.Lookup(ctx, name, who); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lookup(%q) = %v", name, err)
		}
	}
	if _, err := tool.Lookup(ctx, strings.Repeat("x", 256), who); !errors.Is(err, fsys.ErrNameTooLong) {
		t.Errorf("Lookup of a long name = %v", err)
	}
	_, mkdirErr := tool.Mkdir(ctx, "d")
	_, _, createErr := tool.Create(ctx, "new.img", 0o644, who, fsys.Write)
	for op, err := range map[string]error{
		"mkdir": mkdirErr, "create": createErr,
		"rmdir": tool.Rmdir(ctx, "made-up.img"), "unlink": tool.Unlink(ctx, "made-up.img"),
		"rename out": tool.Rename(ctx, "made-up.img", c, "y:1.sif", 0), "rename in": c.Rename(ctx, "x:1.sif", tool, "y.img", 0),
		"write": img.OpenWrite(ctx, who, fsys.Write|fsys.Truncate), "rename it": w.FS.Root().Rename(ctx, ".tool", c, "z", 0),
	} {
		if !errors.Is(err, backends.ErrNotAllowed) && !errors.Is(err, fsys.ErrCrossDevice) {
			t.Errorf("%s: %v, want backends.ErrNotAllowed", op, err)
		}
	}
}
