// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
)

// descriptors returns how many the process has open.
func (m *mounted) descriptors() int {
	m.w.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
	must(m.w.t, err)
	return len(fds)
}

// Files under a temporary name take a descriptor while somebody has them open, and
// no longer: neither in the process that made them nor in the next one.
func TestFiles_closed(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{})
	image := bytes.Repeat([]byte("hello, image\n"), 10_000)
	srv.Put("c/a:1.sif", image, time.Now())
	w := newWorld(t, "r=http,url="+srv.URL)
	w.files = "900 1024"
	m := w.mount()
	const files = 1200
	look := func() {
		t.Helper()
		if n := m.descriptors(); n > 300 {
			t.Errorf("%d descriptors for files that nobody has open", n)
		}
		for _, i := range []int{1, files} {
			got, err := os.ReadFile(m.path("local/.kept" + strconv.Itoa(i)))
			if err != nil || string(got) != fmt.Sprintf("%d\n", i) {
				t.Errorf("file %d: %q, %v", i, got, err)
			}
		}
		if got, err := os.ReadFile(m.path("r/c/a:1.sif")); err != nil || !bytes.Equal(got, image) {
			t.Errorf("an image: %d bytes, %v", len(got), err)
		}
	}
	for i := range files {
		must(t, os.WriteFile(m.path("local/.kept"+strconv.Itoa(i+1)), fmt.Appendf(nil, "%d\n", i+1), 0o600))
	}
	look()
	m.stop()
	m = w.mount()
	look()

	// Who has one open reads it when it is removed, too.
	f, err := os.Open(m.path("local/.kept7"))
	must(t, err)
	defer f.Close()
	must(t, os.Remove(f.Name()))
	buf := make([]byte, 10)
	if n, err := f.Read(buf); err != nil || string(buf[:n]) != "7\n" {
		t.Errorf("a removed file: %q, %v", buf[:n], err)
	}
}

// When there is no descriptor left that is what programs are told, and not that the
// registry is down; and when there is one again, all works at once.
func TestFiles_exhausted(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{})
	for i := range 20 {
		srv.Put(fmt.Sprintf("c%d/a:1.sif", i), []byte("hello, image\n"), time.Now())
	}
	w := newWorld(t, "r=http,url="+srv.URL)
	w.files = "200 256"
	m := w.mount()
	const files = 400
	for i := range files {
		must(t, os.WriteFile(m.path("local/.kept"+strconv.Itoa(i)), []byte("x"), 0o600))
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	var err error
	for i := 0; i < files && err == nil; i++ {
		var f *os.File
		if f, err = os.Open(m.path("local/.kept" + strconv.Itoa(i))); err == nil {
			open = append(open, f)
		}
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("after %d files: %v, want EMFILE", len(open), err)
	}
	for i := range 20 {
		path := m.path(fmt.Sprintf("r/c%d", i))
		if names, err := os.ReadDir(path); err != nil && !errors.Is(err, syscall.EMFILE) {
			t.Errorf("listing %s without a descriptor: %v, %v", path, names, err)
		}
	}
	for _, f := range open {
		f.Close()
	}
	open = nil
	w.eventually("the descriptors are free", func() bool { return m.descriptors() < 150 })
	for i := range 20 {
		if _, err := os.ReadDir(m.path(fmt.Sprintf("r/c%d", i))); err != nil {
			t.Errorf("a listing afterwards: %v", err)
		}
	}
}

// The programs that sregfs starts have the limit that it was given: some close all
// descriptors up to it.
func TestFiles_children(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	told := filepath.Join(t.TempDir(), "told")
	w := newWorld(t, "r=library,url="+srv.URL+",token_command=sh -c 'ulimit -n > "+told+"; echo "+librarytest.Token+"'")
	w.files = "900 1024"
	m := w.mount()
	_, _ = os.ReadDir(m.path("r"))
	got, err := os.ReadFile(told)
	if err != nil || strings.TrimSpace(string(got)) != "900" {
		t.Errorf("ulimit -n of a token command: %q, %v; want 900", got, err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", m.cmd.Process.Pid))
	must(t, err)
	_, line, _ := strings.Cut(string(limits), "Max open files")
	if soft := strings.Fields(line)[0]; soft != "1023" && soft != "1024" {
		t.Errorf("sregfs itself may open %s files", soft)
	}
}
