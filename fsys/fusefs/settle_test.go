// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// After Settle the kernel shows what the catalogue knows, though it may believe the
// old name for seconds.
func TestSettle(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	const many = 100
	for i := range many {
		w.Service.Put(fmt.Sprintf("vsoch/hello:%d", i), fsystest.Image(9000+i, uint64(i)))
	}
	dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "ls -l web/vsoch")
	for i := range many {
		ref := backends.Ref{Collection: "vsoch", Name: "hello", Tag: fmt.Sprint(i)}
		path := filepath.Join(dir, "web/vsoch", fmt.Sprintf("hello:%d.sif", i))
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		img, err := w.Catalog.Lookup(t.Context(), "web", ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Catalog.Delete(t.Context(), "web", img); err != nil {
			t.Fatal(err)
		}
		if err := m.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s after it was deleted: %v", path, err)
		}
	}
}

// A directory in which the kernel waits for an answer of ours cannot be told of
// anything: who settles then gives up, and nothing hangs.
func TestSettle_busy(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	w.Service.Put("vsoch/hello:1", fsystest.Image(9000, 1))
	dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
	for range 2 { // the first one is news, after which the kernel forgets the name
		fusetest.MustShell(t, dir, "ls -l web/vsoch")
		if err := m.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	hold := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "slow") {
			w.Service.Fault.Store(nil)
			close(asked)
			<-answer
		}
		return false
	}
	w.Service.Fault.Store(&hold)
	looked := make(chan string)
	go func() {
		out, _ := fusetest.Shell(t, dir, "mkdir web/vsoch/slow:1.sif || true")
		looked <- out
	}()
	<-asked
	img, err := w.Catalog.Lookup(t.Context(), "web", backends.Ref{Collection: "vsoch", Name: "hello", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Catalog.Delete(t.Context(), "web", img); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Settle while the kernel waits for us: %v", err)
	}
	close(answer)
	<-looked
	if err := m.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "web/vsoch/hello:1.sif")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it was deleted: %v", err)
	}
}
