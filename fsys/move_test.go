// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// What would be copied and then could not be deleted is refused at once.
func TestRename_deletingIsOff(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	root := b.FS.Root()
	web := mustLookup(t, root, "web").(*fsys.Dir)
	local := mustLookup(t, root, "local").(*fsys.Dir)
	for what, rename := range map[string]func() error{
		"an image":              func() error { return b.dir.Rename(t.Context(), "old:1.sif", b.dir, "old:2.sif", 0) },
		"to a temporary name":   func() error { return b.dir.Rename(t.Context(), "old:1.sif", b.dir, ".old", 0) },
		"to another remote":     func() error { return b.dir.Rename(t.Context(), "old:1.sif", local, "old:2.sif", 0) },
		"a collection":          func() error { return web.Rename(t.Context(), "c", web, "d", 0) },
		"one to another remote": func() error { return web.Rename(t.Context(), "c", local, "d", 0) },
	} {
		if err := rename(); !errors.Is(err, backends.ErrNotAllowed) {
			t.Errorf("renaming %s: %v, want %v", what, err, backends.ErrNotAllowed)
		}
	}
	b.published("old:2", nil)
	if n := b.Service.Pushes.Load(); n != 0 {
		t.Errorf("%d pushes", n)
	}
	// What only stands here may get another name by copying.
	if _, err := web.Mkdir(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	if err := web.Rename(t.Context(), "made", web, "other", 0); !errors.Is(err, fsys.ErrCrossDevice) {
		t.Errorf("renaming a collection made here: %v, want %v", err, fsys.ErrCrossDevice)
	}
}

// A remote that can gives an image its new name without copying it.
func TestRename_image(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Delete: true})
	local := mustLookup(t, b.FS.Root(), "local").(*fsys.Dir)
	b.dir = local
	for _, name := range []string{"one:1.sif", "two:1.sif"} {
		file := b.create(name, fsystest.Image(5000, uint64(name[0])))
		b.flush(file, copier, nil)
		file.Close(t.Context())
	}
	digest := func(name string) string {
		t.Helper()
		img, ok := b.lookup(name, copier).(*fsys.Image)
		if !ok {
			return ""
		}
		return img.Xattrs()["digest"]
	}
	one, two := digest("one:1.sif"), digest("two:1.sif")
	if err := local.Rename(t.Context(), "one:1.sif", local, "two:1.sif", fsys.Exclusive); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a name that is taken: %v, want %v", err, fs.ErrExist)
	}
	if err := local.Rename(t.Context(), "one:1.sif", local, "one:1.sif", 0); err != nil {
		t.Errorf("onto itself: %v", err)
	}
	if digest("one:1.sif") != one || digest("two:1.sif") != two {
		t.Fatal("a refused rename did something")
	}
	sub, err := local.Mkdir(t.Context(), "sub")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		from, to      *fsys.Dir
		name, newName string
	}{
		{local, local, "one:1.sif", "three:2.sif"},
		{local, sub, "three:2.sif", "bare"}, // :latest
		{sub, local, "bare:latest.sif", "two:1.sif"},
	} {
		if err := step.from.Rename(t.Context(), step.name, step.to, step.newName, 0); err != nil {
			t.Fatalf("%s to %s: %v", step.name, step.newName, err)
		}
		b.dir = step.from
		if digest(step.name) != "" {
			t.Errorf("%s is still there", step.name)
		}
		b.dir = step.to
		if got := digest(step.newName); got != one {
			t.Errorf("%s has the digest %q, want %q", step.newName, got, one)
		}
	}
	if _, err := local.Lookup(t.Context(), "sub", copier); err != nil {
		t.Errorf("an emptied directory: %v", err)
	}
	if states := b.states(); len(states) != 0 {
		t.Errorf("copied through the spool: %v", states)
	}
	// The web remote has no such thing.
	web := mustLookup(t, mustLookup(t, b.FS.Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	if err := web.Rename(t.Context(), "old:1.sif", web, "old:2.sif", 0); !errors.Is(err, fsys.ErrCrossDevice) {
		t.Errorf("where the service cannot: %v, want %v", err, fsys.ErrCrossDevice)
	}
	if err := local.Rename(t.Context(), "two:1.sif", web, "two:1.sif", 0); !errors.Is(err, fsys.ErrCrossDevice) {
		t.Errorf("to another remote: %v, want %v", err, fsys.ErrCrossDevice)
	}
}

// Who closes a file while a rename publishes it does not take the data away: it is a
// file under its old name if the service refuses it, and can be renamed again.
func TestRename_closedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create(".new", content)
	reader, err := b.lookup(".new", copier).(*fsys.Draft).Open(t.Context(), copier, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.flush(file, copier, nil)
	file.Close(t.Context())
	fault := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		reader.Close(context.Background())
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	b.Service.Fault.Store(&fault)
	if err := b.dir.Rename(t.Context(), ".new", b.dir, "new:1.sif", 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Rename = %v, want %v", err, fs.ErrPermission)
	}
	b.Service.Fault.Store(nil)
	if err := b.dir.Rename(t.Context(), ".new", b.dir, "new:1.sif", 0); err != nil {
		t.Errorf("Rename again = %v", err)
	}
	b.published("new:1", content)
	if states := b.states(); len(states) != 0 {
		t.Errorf("left in the spool: %v", states)
	}
}
