// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// hold keeps requests of that method waiting, after before has been called, until
// release is; arrived gets each.
func (b *bench) hold(method string, before func()) (arrived chan struct{}, release func()) {
	arrived, released := make(chan struct{}, 100), make(chan struct{})
	fault := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			before()
			arrived <- struct{}{}
			<-released
		}
		return false
	}
	b.Service.Fault.Store(&fault)
	return arrived, func() { close(released) }
}

// A file that was removed is not published afterwards: its upload is stopped …
func TestUnlink_stops(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]catalog.Policy{"async": {Async: true}, "sync": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, policy)
			file := b.create("new:1.sif", content)
			arrived, release := b.hold(http.MethodHead, func() {}) // the look before the push
			closed := make(chan error, 1)
			go func() { closed <- file.Flush(t.Context(), copier) }()
			<-arrived
			if err := b.dir.Unlink(t.Context(), "new:1.sif"); err != nil {
				t.Errorf("Unlink = %v", err)
			}
			release()
			want := error(nil)
			if !policy.Async {
				want = fs.ErrNotExist
			}
			if err := <-closed; !errors.Is(err, want) {
				t.Errorf("Flush = %v, want %v", err, want)
			}
			file.Close(t.Context())
			b.Catalog.Expire()
			if b.lookup("new:1.sif", stranger) != nil {
				t.Error("the file is still there")
			}
			b.published("new:1", nil)
			if states := b.states(); len(states) != 0 {
				t.Errorf("left in the spool: %v", states)
			}
		})
	}
}

// … or, where it cannot be stopped any more, the file is not removed.
func TestUnlink_tooLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Async: true})
	file := b.create("new:1.sif", content)
	arrived, release := b.hold(http.MethodPut, func() { b.Service.Put("c/new:1", content) })
	b.flush(file, copier, nil)
	file.Close(t.Context())
	<-arrived
	if err := b.dir.Unlink(t.Context(), "new:1.sif"); !errors.Is(err, fsys.ErrBusy) {
		t.Errorf("Unlink = %v, want %v", err, fsys.ErrBusy)
	}
	if b.lookup("new:1.sif", stranger) == nil {
		t.Error("the file is gone")
	}
	release()
	if err := b.Uploads.Retry(t.Context(), b.Spool.Drafts()[0].ID, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	b.published("new:1", content)
	if err := b.dir.Unlink(t.Context(), "new:1.sif"); !errors.Is(err, backends.ErrNotAllowed) {
		t.Errorf("Unlink of the image = %v, want %v", err, backends.ErrNotAllowed)
	}
}

// What the registry refused hides nothing: the name means what the registry has, to
// everybody, and the data is kept in the journal.
func TestAsync_refused(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Async: true})
	file := b.create("new:1.sif", content)
	theirs := fsystest.Image(5000, 9)
	b.Service.Put("c/new:1", theirs)
	changes := make(chan fsys.Change, 1000)
	defer b.FS.Watch(func(c fsys.Change) { changes <- c })()
	b.flush(file, copier, nil)
	file.Close(t.Context())
	id := b.Spool.Drafts()[0].ID
	for b.Uploads.Pending(id) {
		<-changes // it is told when the upload is given up
	}
	img, ok := b.lookup("new:1.sif", stranger).(*fsys.Image)
	if !ok {
		t.Fatal("the refused file hides the image")
	}
	blob, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	got := make([]byte, len(theirs))
	if _, err := blob.ReadAtContext(t.Context(), got, 0); err != nil || !bytes.Equal(got, theirs) {
		t.Errorf("the image reads otherwise: %v", err)
	}
	for e, err := range b.dir.List(t.Context()) {
		if err != nil || e.Name == "new:1.sif" && e.Node() != nil {
			if _, isDraft := e.Node().(*fsys.Draft); isDraft || err != nil {
				t.Errorf("listed: %s, %v", e.Name, err)
			}
		}
	}
	if states := b.states(); len(states) != 1 || states[0] != spool.Failed {
		t.Errorf("in the spool: %v, want the failed upload", states)
	}
	// It is nobody's file any more, so that it can be discarded, or retried.
	if err := b.Uploads.Discard(t.Context(), id); err != nil {
		t.Errorf("Discard: %v", err)
	}
}

// A name with a version means that one, in all that is done with it.
func TestVersion_kept(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true, Delete: true})
	old := b.Service.Get("c/old:1")
	listed, ok := b.lookup("old:1.sif", copier).(*fsys.Image)
	if !ok {
		t.Fatal("no image")
	}
	name := "old:1@" + listed.Xattrs()["version"] + ".sif"
	img, ok := b.lookup(name, copier).(*fsys.Image)
	if !ok {
		t.Fatalf("%s is no image", name)
	}
	if uri, want := img.Xattrs()["uri"], "web://c/old:1@"+listed.Xattrs()["version"]; uri != want {
		t.Errorf("uri = %s, want %s", uri, want)
	}
	if img.Attr().Ino != listed.Attr().Ino {
		t.Error("one version is two files")
	}
	if err := img.OpenWrite(t.Context(), copier, fsys.Truncate); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("writing to a version: %v, want %v", err, fs.ErrInvalid)
	}
	b.published("old:1", old)
}
