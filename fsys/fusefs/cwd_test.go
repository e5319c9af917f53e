// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// A directory that a process is in keeps its name, whatever the kernel is told
// meanwhile: when it was just made, when an image beside it has the same name, and
// when it was made again in the place of one that somebody is still in.
func TestGetcwd(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true}})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(5000, 1))
	for _, in := range []string{"local/c", "web/c", "web/c/.tool"} {
		fusetest.MustShell(t, dir, "mkdir -p "+in)
		if out, err := child(t, "getcwd", filepath.Join(dir, in)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", in, err, out)
		}
	}
	for _, remote := range []string{"local", "web"} {
		in := filepath.Join(dir, remote, "c", "hello")
		fusetest.MustShell(t, dir, fmt.Sprintf("mkdir %[1]q && cd %[1]q && for i in 1 2 3 4 5 6 7 8 9 10; do "+
			"cp %[2]q ../hello:latest.sif && sleep 0.02 && /bin/pwd -P || exit 1; done", in, src))
	}
}

// childGetcwd makes directories, goes there, and asks where it is.
func childGetcwd(args []string) error {
	buf := make([]byte, unix.PathMax)
	for i := range 200 {
		path := filepath.Join(args[0], fmt.Sprint("d", i))
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("%s: there already", path)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Chdir(path); err != nil {
			return err
		}
		for range 20 {
			if _, err := unix.Getcwd(buf); err != nil {
				return fmt.Errorf("getcwd in %s: %w", path, err)
			}
		}
	}
	// Made again while we are in the one before: a new directory, and a whole one.
	path := filepath.Join(args[0], "again")
	for range 3 {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Chdir(path); err != nil {
			return err
		}
		if err := os.Mkdir("below", 0o755); err != nil {
			return fmt.Errorf("made again: %w", err)
		}
		if err := unix.Rmdir("below"); err != nil {
			return err
		}
		if err := unix.Rmdir(path); err != nil {
			return err
		}
	}
	return unix.Chdir("/")
}
