// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// A file that its maker lets nobody read is read by nobody, while it is written and, in
// a store on this machine, afterwards.
func TestModes(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "setpriv")
	fsystest.Need(t, os.Geteuid() == 0, "a second user, which only root can be")
	w := fsystest.New(t, fsystest.Options{FS: fsys.Options{GID: 4711}})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{AllowOther: true, GID: 4711})
	open(t, dir)
	fusetest.MustShell(t, dir, "mkdir local/c web/c")
	src := source(t, fsystest.Image(50_000, 1))
	reads := func(gid, file string) bool {
		return exec.CommandContext(t.Context(), "setpriv", "--reuid=4712", "--regid="+gid, "--clear-groups", "cat", filepath.Join(dir, file)).Run() == nil
	}
	for _, tt := range []struct {
		script        string
		file          string
		mode          string
		others, group bool
	}{
		{`umask 077; exec 3>local/c/open:1.sif; echo`, "", "", false, false},
		{`umask 077; cp $SRC local/c/.private`, "local/c/.private", "600", false, false},
		{`umask 077; cp $SRC local/c/private:1.sif`, "local/c/private:1.sif", "700", false, false},
		{`umask 022; cp $SRC local/c/private:1.sif`, "local/c/private:1.sif", "700", false, false},
		{`umask 077; cp $SRC local/c/.t && chmod 640 local/c/.t`, "local/c/.t", "640", false, true},
		{`chgrp 4711 local/c; mv local/c/.t local/c/t:1.sif`, "local/c/t:1.sif", "700", false, false}, // of another group in the store
		{`umask 022; cp $SRC local/c/open:1.sif`, "local/c/open:1.sif", "755", true, true},
		{`umask 027; cp $SRC local/c/group:1.sif && chgrp 4711 ` + w.Local + `/c/group/*`, "local/c/group:1.sif", "750", false, true},
		{`rm local/c/open:1.sif; umask 077; cp $SRC local/c/open:1.sif && chmod 755 ` + w.Local + `/c/open/*`, "local/c/open:1.sif", "755", true, true},
		{`umask 077; cp $SRC web/c/x:1.sif`, "web/c/x:1.sif", "555", true, true}, // the registry's
	} {
		fusetest.MustShell(t, dir, "SRC="+src+"; "+tt.script)
		if tt.file == "" {
			continue
		}
		if got := fusetest.MustShell(t, dir, "stat -c %a "+tt.file); got != tt.mode+"\n" {
			t.Errorf("%s: mode %s, want %s", tt.script, got, tt.mode)
		}
		if got := reads("4713", tt.file); got != tt.others {
			t.Errorf("%s: others may read it: %v, want %v", tt.script, got, tt.others)
		}
		if got := reads("4711", tt.file); got != tt.group {
			t.Errorf("%s: the group may read it: %v, want %v", tt.script, got, tt.group)
		}
	}
	// While it is being written.
	f, err := os.OpenFile(filepath.Join(dir, "web/c/new:1.sif"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if reads("4711", "web/c/new:1.sif") || reads("4713", "web/c/new:1.sif") {
		t.Error("others may read a file with mode 0600 that is being written")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// open lets others go through the directories above a temporary one.
func open(t *testing.T, dir string) {
	t.Helper()
	for at := filepath.Dir(dir); at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
