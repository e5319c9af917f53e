// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// overlay mounts an overlayfs whose lower directory is dir.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	at := t.TempDir()
	err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, fmt.Sprintf("lowerdir=%s:%s", dir, t.TempDir()))
	if err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatalf("overlayfs: %v", err)
		}
		t.Skipf("overlayfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount overlayfs: %v", err)
		}
	})
	return at
}

// A file system above the mount keeps the inodes that it has seen: an image that was
// read through it while it came in is read when it is whole, and by passthrough.
func TestOverlay(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, opts fusefs.Options) {
		w := fsystest.New(t, fsystest.Options{Cache: cache.Options{NoBackground: true, StrictSize: -1}})
		content := fsystest.Image(12<<20, 3)
		w.Service.Put("c/i:1", content)
		dir, m := fusetest.Mount(t, w.FS, opts)
		path := filepath.Join(overlay(t, dir), "web/c/i:1.sif")
		held, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		check := func(what string, f *os.File) {
			t.Helper()
			got := make([]byte, 4096)
			if _, err := f.ReadAt(got, 5<<20); err != nil || !bytes.Equal(got, content[5<<20:5<<20+4096]) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		check("a part", held)
		if err := wait(t, w, "web://c/i:1"); err != nil {
			t.Fatal(err)
		}
		check("what was open", held)
		for range 3 {
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("reading what is whole now, beside an open handle: %v", err)
			}
		}
		held.Close()
		if m.Status()["passthrough"] == "on" {
			switched(t, m, path)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("after the last handle: %v", err)
		}
	})
}
