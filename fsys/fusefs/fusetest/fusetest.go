// SPDX-License-Identifier: Apache-2.0

// Package fusetest mounts trees for tests. It is imported from tests only.
package fusetest

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// Mount mounts a tree for the time of the test, and returns the mount with its
// directory. The test is skipped where there is no FUSE (but see fsystest.Need).
//
// Go through the mount with child processes: a program that maps or executes
// files of its own mount can wait for itself.
func Mount(t testing.TB, tree *fsys.FS, opts fusefs.Options) (string, *fusefs.Mounted) {
	t.Helper()
	NeedFUSE(t)
	dir := t.TempDir()
	m, err := fusefs.Mount(t.Context(), dir, tree, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := unmountSoon(m)
		if errors.Is(err, fusefs.ErrBusy) {
			t.Errorf("at the end of the test: %v", err)
			err = m.Detach()
		}
		if err != nil {
			t.Errorf("unmounting: %v", err)
			return
		}
		if !t.Failed() {
			_ = m.Wait()
		}
	})
	return dir, m
}

// unmountSoon is Unmount with patience: a child that another test is just forking
// holds our descriptors until its exec closes them.
func unmountSoon(m *fusefs.Mounted) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		err := m.Unmount()
		if !errors.Is(err, fusefs.ErrBusy) || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// NeedFUSE skips the test where nothing can be mounted.
func NeedFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	fsystest.Need(t, err == nil, "/dev/fuse")
	f.Close()
	if os.Geteuid() != 0 {
		NeedTool(t, "fusermount3")
	}
}

// NeedTool skips the test where a program is not installed.
func NeedTool(t testing.TB, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	fsystest.Need(t, err == nil, name)
}

// Shell runs a shell script in a directory as another process and returns what
// it printed, both outputs together, and whether it succeeded.
//
// The shell goes to the directory itself. A child that does it for us, before its
// exec, waits for the mount while the Go runtime waits for the child: if a
// garbage collection begins then, both wait for ever.
func Shell(t testing.TB, dir, script string) (out string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1" && eval "$2"`, "sh", dir, script)
	text, err := cmd.CombinedOutput()
	return string(text), err == nil
}

// MustShell is Shell for a script that has to succeed.
func MustShell(t testing.TB, dir, script string) string {
	t.Helper()
	out, ok := Shell(t, dir, script)
	if !ok {
		t.Fatalf("%s\nfailed: %s", script, out)
	}
	return out
}

// MustFail is Shell for a script that has to fail.
func MustFail(t testing.TB, dir, script string) string {
	t.Helper()
	out, ok := Shell(t, dir, script)
	if ok {
		t.Fatalf("%s\nsucceeded: %s", script, out)
	}
	return out
}
