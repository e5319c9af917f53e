// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"strings"
	"testing"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// Whatever is refused, the reason is to be found: what was tried on which name, why,
// and what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
	w.Service.Put("c/x:1", fsystest.Image(50_000, 1))
	src := source(t, fsystest.Image(60_000, 2))
	text := source(t, []byte("no image"))
	fusetest.MustShell(t, dir, "cd web/c && test -e x:1.sif")
	for _, tt := range []struct{ script, op, path, why string }{
		{`cp ` + src + ` web/c/x:1.sif`, "write", "web/c/x:1.sif", "--allow-overwrite"},
		{`exec 3<>web/c/x:1.sif`, "open for writing", "web/c/x:1.sif", "--allow-overwrite"},
		{`rm -f web/c/x:1.sif`, "unlink", "web/c/x:1.sif", "--allow-delete"},
		{`mv web/c/x:1.sif web/c/y:1.sif`, "rename", "web/c/y:1.sif", "--allow-delete"},
		{`truncate -s 5 web/c/x+1.sif`, "open for writing", "web/c/x+1.sif", "--allow-overwrite"},
		{`cp ` + text + ` web/c/README.md`, "create", "web/c/README.md", "no image ends in .md"},
		{`cp ` + text + ` web/c/z:1.sif`, "close", "web/c/z:1.sif", "not an image"},
		{`mkdir web/a:b`, "mkdir", "web/a:b", "write it"},
		{`mkdir x`, "mkdir", "x", "configuration"},
		{`ln -s x web/c/link`, "symlink", "web/c/link", "links"},
		{`mkfifo web/c/fifo`, "mknod", "web/c/fifo", "devices"},
		{`cp ` + src + ` web/c/.new && mv web/c/.new web/c/x:1.sif`, "rename", "web/c/x:1.sif", "--allow-overwrite"},
	} {
		fusetest.MustFail(t, dir, tt.script)
		all := m.Refusals()
		if len(all) == 0 {
			t.Fatalf("%s: nothing is told", tt.script)
		}
		got := all[len(all)-1]
		if got.Op != tt.op || got.Path != tt.path || !strings.Contains(got.Error, tt.why) || got.Errno == "" || got.Time.IsZero() {
			t.Errorf("%s: told is %+v, want %s of %s because of %q", tt.script, got, tt.op, tt.path, tt.why)
		}
		at := tt.path[:max(strings.LastIndexByte(tt.path, '/'), 0)]
		if said := fusetest.MustShell(t, dir, `getfattr --only-values -n user.sreg.error "./`+at+`"`); !strings.Contains(said, tt.why) || !strings.HasPrefix(said, tt.op) {
			t.Errorf("%s: the attribute of the directory is %q", tt.script, said)
		}
	}
	for _, name := range []string{"x:1.sif", "x+1.sif"} {
		if said := fusetest.MustShell(t, dir, `getfattr --only-values -n user.sreg.error web/c/`+name); !strings.Contains(said, "--allow-overwrite") {
			t.Errorf("the attribute of %s is %q", name, said)
		}
	}
	// The same again is one, and there is an end.
	before := len(m.Refusals())
	for range 3 {
		fusetest.MustFail(t, dir, `rm -f web/c/x:1.sif`)
	}
	all := m.Refusals()
	if got := all[len(all)-1]; len(all) != before || got.Count != 4 || got.Op != "unlink" {
		t.Errorf("after four times there are %d, not %d, the last one %+v", len(all), before, got)
	}
	fusetest.MustShell(t, dir, `for i in $(seq 100); do mkdir web/a:$i 2>/dev/null; done; true`)
	if n := len(m.Refusals()); n != 20 {
		t.Errorf("%d are kept, want 20", n)
	}
}
