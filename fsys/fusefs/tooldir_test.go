// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"testing"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// The directories that tools make for themselves can be made and used wherever a
// collection can be, and nothing of them reaches the registry.
func TestToolDirs(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "git")
	w := fsystest.New(t, fsystest.Options{})
	w.Service.Put("c/i:1", fsystest.Image(5000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(5000, 2))
	for _, remote := range []string{"local", "web"} {
		fusetest.MustShell(t, dir, "mkdir -p "+remote+"/c")
		for _, in := range []string{remote, remote + "/c"} {
			for _, name := range []string{".git", ".Trash-0", ".~tmp~", ".rsync-partial", ".fseventsd", ".Spotlight-V100", ".cache", ".x:y", ".x@y"} {
				fusetest.MustShell(t, dir, fmt.Sprintf(`
cd %[1]s; mkdir %[2]q && mkdir -p %[2]q/a/b && cp %[3]q %[2]q/a/b/i:1.sif && mv %[2]q/a/b/i:1.sif %[2]q/any.txt && ls -A | grep -qxF %[2]q &&
cmp %[3]q %[2]q/any.txt && test "$(ls %[2]q)" = "a
any.txt" && ! rmdir %[2]q 2>/dev/null && rm -r %[2]q && ! ls -A | grep -qxF %[2]q`, in, name, src))
			}
			fusetest.MustShell(t, dir, "cd "+in+` && git init -q . && git config user.x y && git status --short >/dev/null && rm -r .git`)
		}
	}
	if n := w.Service.Pushes.Load(); n != 0 {
		t.Errorf("%d pushes", n)
	}
	if drafts := w.Spool.Drafts(); len(drafts) != 0 {
		t.Errorf("left in the spool: %+v", drafts)
	}
}

// A directory that looks empty can be removed, whatever went wrong in it, and what is
// left of that is in the spool.
func TestRmdir_afterFailure(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	whole := fsystest.Image(100_000, 1)
	part, src := source(t, whole[:50_000]), source(t, whole)
	fusetest.MustShell(t, dir, "cp "+src+" web/other:1.sif")
	w.Service.Fail("PUT", 403)
	for _, remote := range []string{"local", "web"} {
		fusetest.MustShell(t, dir, fmt.Sprintf(`cd %s; mkdir d; ! cp %q d/x:1.sif 2>/dev/null && test -z "$(ls -A d)" && rmdir d && ! ls | grep -qx d`, remote, part))
	}
	fusetest.MustShell(t, dir, fmt.Sprintf(`cd web; mkdir d; ! cp %q d/x:1.sif 2>/dev/null && test -z "$(ls -A d)" && rmdir d && ! ls | grep -qx d`, src))
	if drafts := w.Spool.Drafts(); len(drafts) != 2 { // the second copy to web took the place of the first
		t.Errorf("in the spool: %+v", drafts)
	}
	w.Service.Fail("", 0)
	for _, d := range w.Spool.Drafts() {
		if d.State == "failed" {
			if err := w.Uploads.Retry(t.Context(), d.ID, nil); err != nil {
				t.Error(err)
			}
		}
	}
	fusetest.MustShell(t, dir, fmt.Sprintf("cmp %q web/d/x:1.sif", src))
}
