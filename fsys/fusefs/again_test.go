// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// Where nothing may be replaced, what is there already may be copied there again, and
// nothing else.
func TestCopyAgain(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "rsync")
	w := fsystest.New(t, fsystest.Options{})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "mkdir web/c")
	content := fsystest.Image(300_000, 1)
	tail := bytes.Clone(content) // it differs where nobody looks before it is closed
	tail[len(tail)/2]++
	other := fsystest.Image(300_000, 2)
	other[50]++ // in its UUID
	env := "SRC=" + source(t, content) + "; OTHER=" + source(t, other) + "; TAIL=" + source(t, tail) + "; "
	at := filepath.Join(dir, "web", "c")
	for _, script := range []string{
		`cp $SRC x:1.sif`,
		`cp $SRC x:1.sif`,
		`cp -a $SRC x+1.sif`,
		`dd if=$SRC of=x:1.sif bs=1000 status=none`,
		`cp $SRC .x:1.sif.AbC123 && mv .x:1.sif.AbC123 x:1.sif`,
		`rsync -a $SRC ./x:1.sif`,
		`rsync -aI $SRC ./x:1.sif`,
		`rsync -aXI $SRC ./x:1.sif`,
		`cat $SRC > x:1.sif`,
	} {
		fusetest.MustShell(t, at, env+script+" && cmp $SRC x:1.sif")
		if n := w.Service.Pushes.Load(); n != 1 {
			t.Fatalf("%s: %d pushes, want 1", script, n)
		}
	}
	for _, script := range []string{
		`cp $OTHER x:1.sif`,
		`cp $TAIL x:1.sif`,
		`head -c 100000 $OTHER | dd of=x:1.sif bs=1000 status=none`,
		`cp $OTHER .x:1.sif.AbC123 && mv .x:1.sif.AbC123 x:1.sif`,
		`rsync -aI $OTHER ./x:1.sif`,
		`rsync -aI $TAIL ./x:1.sif`,
		`exec 3<>x:1.sif`,
		`printf x >> x:1.sif`,
		`truncate -s 5 x:1.sif`,
	} {
		out := fusetest.MustFail(t, at, env+script)
		if !strings.Contains(strings.ToLower(out), "not permitted") {
			t.Errorf("%s: %q, want EPERM", script, out)
		}
		fusetest.MustShell(t, at, env+"rm -f .x*; cmp $SRC x:1.sif")
	}
	if n := w.Service.Pushes.Load(); n != 1 {
		t.Errorf("%d pushes, want 1", n)
	}
	if n := len(w.Spool.Drafts()); n > 1 {
		t.Errorf("%d drafts are left, want that of the copy that differs where nobody looks", n)
	}
}
