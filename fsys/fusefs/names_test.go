// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// "image+tag.sif" is the file "image:tag.sif", whatever is done to it.
func TestPlusNames(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Web: catalog.Policy{Overwrite: true, Delete: true}})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	one, two := fsystest.Image(20_000, 1), fsystest.Squashfs(20_000, 2)
	env := "SIF=" + source(t, one) + "; SQUASH=" + source(t, two) + "; " +
		// The kernel is told in the background that the other names of a file changed.
		`SOON() { n=0; until eval "$1"; do n=$((n+1)); test $n -lt 500 || return 1; sleep 0.02; done; }; ` +
		`GONE() { SOON "! test -e $1"; }; SAME() { test $(stat -c %i $1) = $(stat -c %i $2); }; `
	for _, remote := range []string{"local", "web"} {
		fusetest.MustShell(t, dir, "mkdir "+remote+"/c")
		at := filepath.Join(dir, remote, "c")
		run := func(script string) string {
			t.Helper()
			return fusetest.MustShell(t, at, env+script)
		}
		// What is made under one name is there under the other, as one file.
		run(`cp $SIF a+1.sif && cmp $SIF a:1.sif && cmp $SIF a+1.sif && SAME a+1.sif a:1.sif`)
		run(`cp $SIF b:1.sif && cmp $SIF b+1.sif && SAME b+1.sif b:1.sif && SAME b+1.simg b:1`)
		run(`cp $SIF .a+2.sif.AbC123 && mv .a+2.sif.AbC123 a+2.sif && cmp $SIF a:2.sif`)
		if got, want := run("ls -A"), "a:1.sif\na:2.sif\nb:1.sif\n"; got != want {
			t.Errorf("%s lists %q, want %q", remote, got, want)
		}
		if got := run("getfattr --only-values -n user.sreg.uri a+2.sif"); got != remote+"://c/a:2" {
			t.Errorf("the URI of a+2.sif on %s is %q", remote, got)
		}
		// A version.
		run(`v=$(getfattr --only-values -n user.sreg.version a:1.sif) && cmp $SIF a+1@$v.sif && cmp $SIF a:1@$v.sif`)
		// Writing to one is seen under both, also by whoever has just looked.
		run(`stat a:1.sif a+1.sif >/dev/null && cp $SQUASH a+1.sif && SOON "cmp -s $SQUASH a:1.sif" && cmp $SQUASH a+1.sif`)
		run(`stat b:1.sif b+1.sif >/dev/null && cp $SQUASH b:1.sif && SOON "cmp -s $SQUASH b+1.sif" && cmp $SQUASH b:1.sif`)
		// A rename, and the end of both.
		run(`mv b:1.sif b+1.sif 2>&1 | grep "same file" && test -e b:1.sif`)
		run(`stat a+2.sif a+3.sif a:3.sif 2>/dev/null; mv a+2.sif a+3.sif && SOON "cmp -s $SIF a:3.sif" && GONE a:2.sif && GONE a+2.sif`)
		run(`rm a+3.sif && GONE a:3.sif && GONE a+3.sif`)
		run(`rm b:1.sif && GONE b+1.sif`)
		// Names and tags with a plus of their own, and directories.
		run(`cp $SIF g++:1+2.sif && cmp $SIF g%2B%2B+1%2B2.sif && ! cp $SIF g++.sif && ! test -e g++.sif && cp $SIF g++ && cmp $SIF g++:latest.sif`)
		run(`mkdir c++ d+1.sif && cp $SIF d+1.sif/x+1.sif && cmp $SIF d+1.sif/x:1.sif && ls c++`)
	}
}

// The spelling of listings is a setting, for all formats.
func TestPlusNames_listed(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{FS: fsys.Options{Names: fsys.NamesPlus}})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	src := source(t, fsystest.Image(20_000, 1))
	got := fusetest.MustShell(t, dir, `mkdir local/c && cd local/c && cp `+src+` a:1.sif && cp `+src+` g++:1+2.sif && exec 3> open:1.sif && ls -A`)
	if want := "a+1.sif\ng%2B%2B+1%2B2.sif\nopen+1.sif\n"; got != want {
		t.Errorf("listed are %q, want %q", got, want)
	}
	w.Service.Put("vsoch/hello:2.0", fsystest.Image(20_000, 1))
	if entries, err := os.ReadDir(filepath.Join(dir, "web", "vsoch")); err != nil || len(entries) != 1 || entries[0].Name() != "hello+2.0.sif" {
		t.Errorf("web lists %v, %v", entries, err)
	}
}
