// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// A file that cannot be kept from being published any more rm does not remove.
func TestRemove_underWay(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Async: true}})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	content := fsystest.Image(300000, 3)
	src := source(t, content)
	fusetest.MustShell(t, dir, "mkdir web/c")
	arrived, answer := make(chan struct{}, 1), make(chan struct{})
	fault := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			w.Service.Put("c/late:1", content)
			arrived <- struct{}{}
			<-answer
		}
		return false
	}
	w.Service.Fault.Store(&fault)
	fusetest.MustShell(t, dir, "cp "+src+" web/c/late:1.sif")
	<-arrived
	if out := fusetest.MustFail(t, dir, "rm web/c/late:1.sif"); !strings.Contains(out, "busy") && !strings.Contains(out, "not permitted") {
		t.Errorf("rm: %s", out)
	}
	close(answer)
	w.Service.Fault.Store(nil)
	fusetest.MustShell(t, dir, "cmp web/c/late:1.sif "+src)
}

// A tag that moved between the look and the rm stays: what was looked at is gone
// already.
func TestRemove_moved(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Delete: true}})
	w.Service.Put("c/i:1", fsystest.Image(5000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "ls -l web/c/i:1.sif")
	theirs := fsystest.Image(6000, 2)
	w.Service.Put("c/i:1", theirs)
	if out := fusetest.MustFail(t, dir, "rm web/c/i:1.sif"); !strings.Contains(out, "No such file") {
		t.Errorf("rm: %s", out)
	}
	if sum(w.Service.Get("c/i:1")) != sum(theirs) {
		t.Error("another image was deleted")
	}
	fusetest.MustShell(t, dir, "cmp web/c/i:1.sif "+source(t, theirs)+" && rm web/c/i:1.sif && test ! -e web/c/i:1.sif")
}

// mv of an image renames it where that can be, copies it to another remote, and does
// nothing where it could not remove it.
func TestRename_images(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	w.Service.Put("c/i:1", fsystest.Image(5000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	for _, way := range []string{"mv i:1.sif j:1.sif", "mv i:1.sif ../d", "mv ../c ../../local/e"} {
		if out := fusetest.MustFail(t, filepath.Join(dir, "web", "c"), "mkdir -p ../d && "+way); !strings.Contains(out, "not permitted") {
			t.Errorf("%s: %s", way, out)
		}
	}
	if n := w.Service.Pushes.Load(); n != 0 {
		t.Errorf("%d pushes", n)
	}
	content := fsystest.Image(300000, 3)
	fusetest.MustShell(t, dir, "mkdir local/c local/d && cp "+source(t, content)+" local/c/i:1.sif")
	before, err := os.Stat(localFile(t, w, "c/i"))
	if err != nil {
		t.Fatal(err)
	}
	fusetest.MustShell(t, dir, `exec 3<local/c/i:1.sif; mv local/c/i:1.sif local/d/j:2.sif && cmp - local/d/j:2.sif <&3 &&
		test ! -e local/c/i:1.sif && test "$(ls local/c)" = ""`)
	after, err := os.Stat(localFile(t, w, "d/j"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was copied (%v)", err)
	}
	fusetest.MustShell(t, dir, "mv local/d/j:2.sif web/c/j:2.sif && test ! -e local/d/j:2.sif && cmp web/c/j:2.sif "+source(t, content))
}

// localFile returns the one file of an image in the local store.
func localFile(t *testing.T, w *fsystest.World, image string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.Local, image, "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of %s: %q, %v", image, found, err)
	}
	return found[0]
}
