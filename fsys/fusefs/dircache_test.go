// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"log"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// traced mounts with a log of all requests, and returns how many of a kind there
// were since the last call.
func traced(t *testing.T, w *fsystest.World, opts fusefs.Options) (dir string, requests func(kind string) int) {
	t.Helper()
	var trace lines
	dir, _ = fusetest.Mount(t, w.FS, fusefs.Traced(opts, log.New(&trace, "", 0)))
	seen := map[string]int{}
	return dir, func(kind string) int {
		all := strings.Count(trace.String(), " "+kind+" ") + strings.Count(trace.String(), " "+kind+": ")
		n := all - seen[kind]
		seen[kind] = all
		return n
	}
}

// The second reader of a directory costs us no name.
func TestDirCache_kept(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	for i := range 3000 {
		w.Service.Put(fmt.Sprintf("big/image-with-a-name:%d", i), nil)
	}
	dir, requests := traced(t, w, fusefs.Options{})
	big := filepath.Join(dir, "web/big")
	first := fusetest.MustShell(t, big, "ls -f | sort")
	if n := requests("READDIR") + requests("READDIRPLUS"); n == 0 {
		t.Fatal("the trace shows no request")
	}
	// The first listing changed the directory.
	until(t, "names that the kernel keeps", func() bool {
		if again := fusetest.MustShell(t, big, "ls -f | sort"); again != first {
			t.Error("the kernel keeps other names than it was told")
		}
		return requests("READDIR")+requests("READDIRPLUS") == 0
	})
	if n := w.Service.Stats.Load(); n != 0 {
		t.Errorf("listing asked about %d images", n)
	}
}

// What is done through the mount shows in the next listing, what happens at the
// registry as soon as the catalogue knows it.
func TestDirCache_changes(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true, Delete: true}})
	w.Service.Put("c/a:1", fsystest.Image(5000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	c := filepath.Join(dir, "web/c")
	ls := func(want ...string) {
		t.Helper()
		for range 2 { // the second from what the kernel keeps
			if got := strings.Fields(fusetest.MustShell(t, c, "ls")); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Fatalf("ls = %q, want %q", got, want)
			}
		}
	}
	ls("a:1.sif")
	fusetest.MustShell(t, c, "cp a:1.sif b:1.sif")
	ls("a:1.sif", "b:1.sif")
	fusetest.MustShell(t, c, "mkdir d")
	ls("a:1.sif", "b:1.sif", "d")
	fusetest.MustShell(t, c, "echo x > .temporary; ls -A > /dev/null; rm .temporary")
	ls("a:1.sif", "b:1.sif", "d")
	fusetest.MustShell(t, c, "cp a:1.sif .x.AbC123 && ls -A >/dev/null && mv .x.AbC123 e:1.sif")
	ls("a:1.sif", "b:1.sif", "d", "e:1.sif")
	fusetest.MustShell(t, c, "rm b:1.sif && rmdir d")
	ls("a:1.sif", "e:1.sif")

	w.Service.Put("c/f:1", fsystest.Image(6000, 1))
	w.Service.Remove("c/e:1")
	before := fusetest.MustShell(t, dir, "stat -c %Y,%y web/c")
	until(t, "the registry's changes", func() bool {
		w.Catalog.Expire() // what an ls after the list's time makes of it
		return fusetest.MustShell(t, c, "ls") == "a:1.sif\nf:1.sif\n"
	})
	ls("a:1.sif", "f:1.sif")
	if after := fusetest.MustShell(t, dir, "stat -c %Y,%y web/c"); after == before {
		t.Errorf("the directory has the same time: %s", after)
	}
}

// A name that the kernel was told not to be there is there as soon as a listing has it.
func TestDirCache_denied(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	w.Service.Put("c/a:1", fsystest.Image(5000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	c := filepath.Join(dir, "web/c")
	fusetest.MustShell(t, c, "ls")
	fusetest.MustFail(t, c, "stat b:1.sif")
	w.Service.Put("c/b:1", fsystest.Image(5000, 2))
	if err := w.Catalog.Refresh(t.Context(), "web", "c"); err != nil {
		t.Fatal(err)
	}
	fusetest.MustShell(t, c, "stat b:1.sif")
}

// Whoever wants the attributes of all names gets them with the names, also when
// the kernel has the names already: not one by one.
func TestDirCache_attributes(t *testing.T) {
	t.Parallel()
	const n = 5000
	w := fsystest.New(t, fsystest.Options{})
	for i := range n {
		w.Service.Put(fmt.Sprintf("big/i:%d", i), []byte("content"))
	}
	other, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, filepath.Join(other, "web/big"), "ls -l") // the facts become known
	dir, requests := traced(t, w, fusefs.Options{})
	big := filepath.Join(dir, "web/big")
	until(t, "names that the kernel keeps", func() bool {
		fusetest.MustShell(t, big, "ls -f")
		return requests("READDIR")+requests("READDIRPLUS") == 0
	})
	requests("LOOKUP")
	if got := strings.Count(fusetest.MustShell(t, big, "ls -l"), " 7 "); got != n {
		t.Errorf("ls -l shows %d images, want %d", got, n)
	}
	if got := requests("LOOKUP"); got > n/3 {
		t.Errorf("ls -l made %d lookups for %d names", got, n)
	}
}

// until asks again until it is so; the test's time is the limit.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for !so() {
		if t.Context().Err() != nil {
			t.Fatalf("never seen: %s", what)
		}
	}
}
