// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// A bench is the collection "c" of the remote "web" and what is behind it.
type bench struct {
	*fsystest.World
	t   *testing.T
	dir *fsys.Dir
}

func newBench(t *testing.T, policy catalog.Policy) *bench {
	t.Helper()
	return newBenchOf(t, fsystest.Options{Web: policy})
}

func newBenchOf(t *testing.T, opts fsystest.Options) *bench {
	t.Helper()
	w := fsystest.New(t, opts)
	w.Service.Put("c/old:1", fsystest.Image(4096, 1))
	dir := mustLookup(t, mustLookup(t, w.FS.Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	return &bench{w, t, dir}
}

// create makes a file with content, open.
func (b *bench) create(name string, content []byte) *fsys.File {
	b.t.Helper()
	_, file, err := b.dir.Create(b.t.Context(), name, 0o644, copier, 0)
	if err != nil {
		b.t.Fatalf("creating %s: %v", name, err)
	}
	if _, err := file.WriteAt(b.t.Context(), content, 0); err != nil {
		b.t.Fatal(err)
	}
	return file
}

func (b *bench) flush(file *fsys.File, who fsys.Caller, want error) {
	b.t.Helper()
	if err := file.Flush(b.t.Context(), who); !errors.Is(err, want) {
		b.t.Errorf("Flush = %v, want %v", err, want)
	}
}

// published checks what the service has under a name.
func (b *bench) published(name string, want []byte) {
	b.t.Helper()
	if got := b.Service.Get("c/" + name); !bytes.Equal(got, want) {
		b.t.Errorf("c/%s has %d bytes in the registry, want %d", name, len(got), len(want))
	}
}

func (b *bench) lookup(name string, who fsys.Caller) fsys.Node {
	b.t.Helper()
	node, err := b.dir.Lookup(b.t.Context(), name, who)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		b.t.Fatalf("lookup of %s: %v", name, err)
	}
	return node
}

func (b *bench) states() []spool.State {
	var states []spool.State
	for _, d := range b.Spool.Drafts() {
		states = append(states, d.State)
	}
	return states
}

var (
	stranger = fsys.Caller{Thread: 21, Process: 20}
	content  = fsystest.Image(50000, 7)
)

// Only who opened the file publishes it by closing; the others let go of it.
func TestFlush_opener(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", nil)
	b.flush(file, copier, nil) // a shell, before anything is written
	if _, err := file.WriteAt(t.Context(), content[:1000], 0); err != nil {
		t.Fatal(err)
	}
	b.flush(file, stranger, nil) // a child that inherited the descriptor
	if _, err := file.WriteAt(t.Context(), content[1000:], 1000); err != nil {
		t.Fatal(err)
	}
	b.flush(file, stranger, nil)
	b.published("new:1", nil)
	b.flush(file, fsys.Caller{Thread: 12, Process: 10}, nil) // another thread of the opener
	b.published("new:1", content)
	b.flush(file, copier, nil)
	if n := b.Service.Pushes.Load(); n != 1 {
		t.Errorf("%d pushes, want 1", n)
	}
	got := make([]byte, 100)
	if _, err := file.ReadAt(got, 500); err != nil || !bytes.Equal(got, content[500:600]) {
		t.Errorf("reading after the publishing: %v", err)
	}
	file.Close(t.Context())
	if states := b.states(); len(states) != 0 {
		t.Errorf("left in the spool: %v", states)
	}
	if _, ok := b.lookup("new:1.sif", copier).(*fsys.Image); !ok {
		t.Error("the name does not mean the image")
	}
}

// Where no closing came from the opener, the last one publishes.
func TestClose_publishes(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", content)
	b.flush(file, stranger, nil)
	b.published("new:1", nil)
	file.Close(t.Context())
	b.published("new:1", content)
}

func TestFlush_incomplete(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", content[:20000])
	b.flush(file, copier, backends.ErrCorrupt)
	b.flush(file, copier, backends.ErrCorrupt) // it stays
	if err := file.Sync(); err != nil {
		t.Errorf("Sync after a failed Flush: %v", err)
	}
	if node := b.lookup("new:1.sif", copier); node != nil {
		t.Errorf("half an image is shown: %+v", node.Attr())
	}
	if _, err := file.WriteAt(t.Context(), content[20000:], 20000); err != nil {
		t.Fatal(err)
	}
	b.flush(file, copier, nil) // but for new content
	b.published("new:1", content)
	file.Close(t.Context())

	file = b.create("other:1.sif", content[:20000])
	b.flush(file, copier, backends.ErrCorrupt)
	file.Close(t.Context())
	b.published("other:1", nil)
	if states := b.states(); len(states) != 1 || states[0] != spool.Incomplete {
		t.Errorf("in the journal: %v", states)
	}
}

// fsync makes a file durable here, whole or not, and shows it to nobody.
func TestSync(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	old := b.Service.Get("c/old:1")
	image := b.lookup("old:1.sif", copier).(*fsys.Image)
	if err := image.OpenWrite(t.Context(), copier, fsys.Truncate); !errors.Is(err, fsys.ErrRetry) {
		t.Fatalf("OpenWrite = %v, want %v", err, fsys.ErrRetry)
	}
	file, err := b.lookup("old:1.sif", copier).(*fsys.Draft).Open(t.Context(), copier, fsys.Write|fsys.Truncate)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []int{20000, len(content)} {
		if _, err := file.WriteAt(t.Context(), content[:to], 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			t.Errorf("Sync of %d bytes: %v", to, err)
		}
		b.published("old:1", old)
	}
	b.flush(file, copier, nil)
	b.published("old:1", content)
	file.Close(t.Context())
}

// Who gives up waiting gets an error, and the draft stays, unpublished.
func TestFlush_interrupted(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", content)
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	fault := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
			cancel()
			<-hang
		}
		return r.Method == http.MethodPut
	}
	b.Service.Fault.Store(&fault)
	if err := file.Flush(ctx, copier); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush = %v, want %v", err, context.Canceled)
	}
	close(hang)
	b.Service.Fault.Store(nil)
	file.Close(t.Context())
	b.published("new:1", nil)
	if states := b.states(); len(states) != 1 || states[0] != spool.Sealed {
		t.Errorf("in the journal: %v", states)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", nil)
	if b.lookup("new:1", stranger) == nil {
		t.Error("a file that is open is not shown")
	}
	b.flush(file, copier, nil)
	file.Close(t.Context())
	if b.lookup("new:1.sif", copier) != nil || len(b.states()) != 0 {
		t.Errorf("an empty file stays: %v", b.states())
	}
}

func TestUnlink_open(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	file := b.create("new:1.sif", content)
	if err := b.dir.Unlink(t.Context(), "new:1.sif"); err != nil {
		t.Fatal(err)
	}
	if b.lookup("new:1.sif", copier) != nil {
		t.Error("it is still there")
	}
	got := make([]byte, 10)
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, content[:10]) {
		t.Errorf("reading what was removed: %v", err)
	}
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("new:1", nil)
	if err := b.dir.Unlink(t.Context(), "old:1.sif"); !errors.Is(err, backends.ErrNotAllowed) {
		t.Errorf("removing an image: %v, want %v", err, backends.ErrNotAllowed)
	}
	if err := b.dir.Unlink(t.Context(), "none:1.sif"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing nothing: %v, want %v", err, fs.ErrNotExist)
	}
}

// What rm -r and mv do: a directory stays while its files go, and goes last.
func TestUnlink_last(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"local", "web"} {
		t.Run(remote, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, catalog.Policy{Delete: true})
			root := mustLookup(t, b.FS.Root(), remote).(*fsys.Dir)
			parent, err := root.Mkdir(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if b.dir, err = parent.Mkdir(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			file := b.create("x:1.sif", content)
			b.flush(file, copier, nil)
			file.Close(t.Context())
			if err := b.dir.Unlink(t.Context(), "x:1.sif"); err != nil {
				t.Fatal(err)
			}
			if err := root.Rmdir(t.Context(), "a"); !errors.Is(err, fsys.ErrNotEmpty) {
				t.Errorf("Rmdir of a = %v, want %v", err, fsys.ErrNotEmpty)
			}
			if err := parent.Rmdir(t.Context(), "b"); err != nil {
				t.Errorf("Rmdir of a/b: %v", err)
			}
			if err := root.Rmdir(t.Context(), "a"); err != nil {
				t.Errorf("Rmdir of a: %v", err)
			}
			if _, err := root.Lookup(t.Context(), "a", copier); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Lookup of a after Rmdir = %v, want %v", err, fs.ErrNotExist)
			}
		})
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	rename := func(from, to string, flags fsys.Flags, want error) {
		t.Helper()
		if err := b.dir.Rename(t.Context(), from, b.dir, to, flags); !errors.Is(err, want) {
			t.Errorf("renaming %s to %s: %v, want %v", from, to, err, want)
		}
	}
	file := b.create(".tmp.1", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("new:1", nil)
	rename(".tmp.1", ".tmp.2", fsys.Exclusive, nil)
	rename(".tmp.1", "new:1.sif", 0, fs.ErrNotExist)
	rename(".tmp.2", "old:1.sif", fsys.Exclusive, fs.ErrExist)
	rename(".tmp.2", "old:1.sif", 0, backends.ErrNotAllowed)
	rename(".tmp.2", "a:b:c.sif", 0, fs.ErrInvalid)
	rename("old:1.sif", "old:2.sif", 0, backends.ErrNotAllowed)
	rename(".tmp.2", "new:1.sif", fsys.Exclusive, nil)
	b.published("new:1", content)

	// Still open: who closes it publishes it, and hears of it.
	file = b.create(".tmp.3", content)
	rename(".tmp.3", "open:1.sif", 0, nil)
	b.published("open:1", nil)
	b.flush(file, copier, nil)
	b.published("open:1", content)
	file.Close(t.Context())

	// What was not whole when it was closed does not become so by another name.
	file = b.create(".tmp.4", content[:20000])
	b.flush(file, copier, nil)
	file.Close(t.Context())
	rename(".tmp.4", "part:1.sif", 0, backends.ErrCorrupt)
	b.published("part:1", nil)
	if b.lookup(".tmp.4", copier) == nil || b.lookup("part:1.sif", copier) != nil {
		t.Error("after a failed renaming the file is not where it was")
	}

	// Two temporary files, one over the other.
	file = b.create(".tmp.5", content)
	file.Close(t.Context())
	rename(".tmp.5", ".tmp.4", fsys.Exclusive, fs.ErrExist)
	rename(".tmp.5", ".tmp.4", 0, nil)
	rename(".tmp.4", "whole:1.sif", 0, nil)
	b.published("whole:1", content)
	if states := b.states(); len(states) != 0 {
		t.Errorf("left in the spool: %v", states)
	}
}

// Who replaces an image writes another file than the others read.
func TestOpenWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	old := b.Service.Get("c/old:1")
	image := b.lookup("old:1.sif", copier).(*fsys.Image)
	if err := image.OpenWrite(t.Context(), copier, fsys.Truncate); !errors.Is(err, fsys.ErrRetry) {
		t.Fatalf("OpenWrite = %v, want %v", err, fsys.ErrRetry)
	}
	if _, ok := b.lookup("old:1.sif", stranger).(*fsys.Image); !ok {
		t.Error("others do not see the image any more")
	}
	draft, ok := b.lookup("old:1", copier).(*fsys.Draft)
	if !ok {
		t.Fatal("the writer does not see the draft")
	}
	file, err := draft.Open(t.Context(), copier, fsys.Write|fsys.Truncate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(t.Context(), content, 0); err != nil {
		t.Fatal(err)
	}
	b.published("old:1", old)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("old:1", content)

	// Not truncated, it begins with what there is; unchanged, it is not published.
	pushes := b.Service.Pushes.Load()
	image = b.lookup("old:1.sif", copier).(*fsys.Image)
	if err := image.OpenWrite(t.Context(), copier, 0); !errors.Is(err, fsys.ErrRetry) {
		t.Fatalf("OpenWrite = %v, want %v", err, fsys.ErrRetry)
	}
	file, err = b.lookup("old:1.sif", copier).(*fsys.Draft).Open(t.Context(), copier, fsys.Write)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the draft does not begin as the image: %v", err)
	}
	b.flush(file, copier, nil)
	file.Close(t.Context())
	if n := b.Service.Pushes.Load(); n != pushes {
		t.Errorf("a file that was only opened was pushed")
	}
	if states := b.states(); len(states) != 0 {
		t.Errorf("left in the spool: %v", states)
	}
}

// What was accepted for later is there at once, and is the same afterwards.
// away is how long a registry that is down is asked; a registry that is up has to
// answer in that time.
const away = time.Second

// With the registry down, what it never listed can be copied and made.
func TestAsync_away(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, fsystest.Options{Web: catalog.Policy{Async: true}, MaxElapsed: away})
	for range b.dir.List(t.Context()) { // what is known of it
	}
	web := mustLookup(t, b.FS.Root(), "web").(*fsys.Dir)
	for range web.List(t.Context()) {
	}
	down := func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	b.Service.Fault.Store(&down)
	if _, err := b.dir.Lookup(t.Context(), "old:1", copier); errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was listed does not exist: %v", err)
	}
	if b.lookup("new:1.sif", copier) != nil {
		t.Fatal("what never was is there")
	}
	file := b.create("new:1.sif", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	var err error
	if _, err = web.Lookup(t.Context(), "made", copier); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("looking for a new collection: %v, want %v", err, fs.ErrNotExist)
	}
	if b.dir, err = web.Mkdir(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	if b.lookup("new:1.sif", copier) != nil {
		t.Fatal("a new collection holds something")
	}
	file = b.create("new:1.sif", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	if b.lookup("new:1.sif", stranger) == nil {
		t.Error("what was accepted is not there")
	}
	for e, err := range b.dir.List(t.Context()) {
		if err != nil || e.Name != "new:1.sif" {
			t.Errorf("listed: %q, %v", e.Name, err)
		}
	}
}

// Where close waits for the registry, nothing is said of it that nobody knows.
func TestLookup_away(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, fsystest.Options{MaxElapsed: away})
	for range b.dir.List(t.Context()) {
	}
	b.Service.Fail(http.MethodHead, http.StatusServiceUnavailable)
	if _, err := b.dir.Lookup(t.Context(), "new:1.sif", copier); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Lookup = %v, want %v", err, backends.ErrUnavailable)
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Async: true})
	b.Service.Fail(http.MethodPut, http.StatusForbidden)
	file := b.create("new:1.sif", content)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("new:1", nil)
	draft, ok := b.lookup("new:1.sif", stranger).(*fsys.Draft)
	if !ok {
		t.Fatal("what was accepted is not shown")
	}
	if size := draft.Attr().Size; size != int64(len(content)) {
		t.Errorf("its size is %d, want %d", size, len(content))
	}
	reader, err := draft.Open(t.Context(), stranger, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("reading it: %v", err)
	}
	reader.Close(t.Context())
	if _, _, err := b.dir.Create(t.Context(), "new:1.sif", 0o644, stranger, 0); !errors.Is(err, fsys.ErrBusy) {
		t.Errorf("another file of that name: %v, want %v", err, fsys.ErrBusy)
	}
	b.Service.Fail("", 0)
	if err := b.Uploads.Retry(t.Context(), b.Spool.Drafts()[0].ID, nil); err != nil {
		t.Fatal(err)
	}
	b.published("new:1", content)
	if _, ok := b.lookup("new:1.sif", stranger).(*fsys.Image); !ok {
		t.Error("the name does not mean the image")
	}
}

// What was accepted is in the tree of the next process too.
func TestAsync_restart(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Async: true})
	b.Service.Fail(http.MethodPut, http.StatusForbidden)
	_, file, err := b.dir.Create(t.Context(), "new:1.sif", 0o644, copier, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(t.Context(), content, 0); err != nil {
		t.Fatal(err)
	}
	b.flush(file, copier, nil)
	file.Close(t.Context())

	b.dir = mustLookup(t, mustLookup(t, fsys.New(b.Catalog, b.Uploads, fsys.Options{}).Root(), "web").(*fsys.Dir), "c").(*fsys.Dir)
	draft, ok := b.lookup("new:1.sif", stranger).(*fsys.Draft)
	if !ok {
		t.Fatal("what was accepted is not shown")
	}
	if a := draft.Attr(); a.Size != int64(len(content)) || a.Mode != 0o755 || time.Since(a.ModTime) > time.Hour {
		t.Errorf("Attr = %+v", a)
	}
	reader, err := draft.Open(t.Context(), stranger, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("reading it: %v", err)
	}
	reader.Close(t.Context())
	b.Service.Fail("", 0)
	if err := b.Uploads.Retry(t.Context(), b.Spool.Drafts()[0].ID, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.lookup("new:1.sif", stranger).(*fsys.Image); !ok {
		t.Error("the name does not mean the image")
	}
}

// The kernel tells of a close some time after close(2) has returned: a rename in
// between publishes all the same, and fails if that does.
func TestRename_beforeRelease(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	content := fsystest.Image(5000, 7)
	for _, test := range []struct {
		name   string
		status int
		want   error
	}{{"refused:1", http.StatusForbidden, fs.ErrPermission}, {"taken:1", 0, nil}} {
		file := b.create(".tmp."+test.name, content)
		b.flush(file, copier, nil)
		b.Service.Fail(http.MethodPut, test.status)
		released := make(chan struct{})
		time.AfterFunc(50*time.Millisecond, func() {
			file.Close(context.Background())
			close(released)
		})
		if err := b.dir.Rename(t.Context(), ".tmp."+test.name, b.dir, test.name+".sif", 0); !errors.Is(err, test.want) {
			t.Errorf("Rename = %v, want %v", err, test.want)
		}
		<-released
		if test.want == nil {
			b.published(test.name, content)
		} else {
			b.published(test.name, nil)
		}
	}
}
