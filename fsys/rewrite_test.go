// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

func (b *bench) write(file *fsys.File, p []byte, off int64) {
	b.t.Helper()
	if _, err := file.WriteAt(b.t.Context(), p, off); err != nil {
		b.t.Fatalf("writing: %v", err)
	}
}

// openWrite opens an image for writing as a kernel does.
func (b *bench) openWrite(name string, who fsys.Caller) *fsys.File {
	b.t.Helper()
	if image, ok := b.lookup(name, who).(*fsys.Image); ok {
		if err := image.OpenWrite(b.t.Context(), who, 0); !errors.Is(err, fsys.ErrRetry) {
			b.t.Fatalf("OpenWrite = %v, want %v", err, fsys.ErrRetry)
		}
	}
	draft, ok := b.lookup(name, who).(*fsys.Draft)
	if !ok {
		b.t.Fatalf("%s is no draft for the writer", name)
	}
	file, err := draft.Open(b.t.Context(), who, fsys.Write)
	if err != nil {
		b.t.Fatal(err)
	}
	return file
}

// changed is content with another byte near its end, which no gate looks at.
func changed(content []byte, by byte) []byte {
	next := append([]byte(nil), content...)
	next[len(next)-4096] ^= by
	return next
}

// What an open file writes after a closing that published it is published by the
// next closing, over its own publication, also where overwriting is not allowed.
func TestFlush_again(t *testing.T) {
	t.Parallel()
	for _, async := range []bool{false, true} {
		t.Run(map[bool]string{false: "sync", true: "async"}[async], func(t *testing.T) {
			t.Parallel()
			b := newBench(t, catalog.Policy{Async: async})
			file := b.create("new:1.sif", content)
			b.flush(file, copier, nil)
			second, third := changed(content, 1), changed(content, 2)
			b.write(file, second, 0)
			got := make([]byte, len(content))
			if _, err := file.ReadAt(got, 0); err != nil || string(got) != string(second) {
				t.Errorf("reading what was written: %v", err)
			}
			b.flush(file, copier, nil)
			b.write(file, third[:1000], 0)
			b.write(file, third[1000:], 1000)
			file.Close(t.Context()) // the last one, which nobody hears of
			b.drained()
			b.published("new:1", third)
			if states := b.states(); len(states) != 0 {
				t.Errorf("left in the spool: %v", states)
			}
		})
	}
}

// drained waits until nothing is queued, but for what needs another try.
func (b *bench) drained() {
	b.t.Helper()
	for _, d := range b.Spool.Drafts() {
		if d.Queued() {
			if err := b.Uploads.Retry(b.t.Context(), d.ID, nil); err != nil && b.has(d.ID) {
				b.t.Fatal(err)
			}
		}
	}
}

func (b *bench) has(id string) bool {
	d, err := b.Spool.Draft(id)
	if err != nil {
		return false
	}
	d.Close()
	return true
}

// It replaces nothing but that.
func TestFlush_againMoved(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	file := b.create("new:1.sif", content)
	b.flush(file, copier, nil)
	other := fsystest.Image(60000, 9)
	b.Service.Put("c/new:1", other)
	b.write(file, changed(content, 1), 0)
	b.flush(file, copier, backends.ErrChanged)
	file.Close(t.Context())
	b.published("new:1", other)
	if states := b.states(); len(states) != 1 || states[0] != spool.Failed {
		t.Errorf("in the journal: %v", states)
	}
}

// What is written while it is being published waits for that, and is not lost.
func TestWrite_whilePublished(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	sent, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fault := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			once.Do(func() { close(sent); <-answer })
		}
		return false
	}
	b.Service.Fault.Store(&fault)
	file := b.create("new:1.sif", content)
	flushed, written := make(chan error), make(chan error)
	go func() { flushed <- file.Flush(t.Context(), copier) }()
	<-sent
	go func() {
		_, err := file.WriteAt(t.Context(), changed(content, 1), 0)
		written <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := file.WriteAt(ctx, content, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up writing: %v, want %v", err, context.Canceled)
	}
	close(answer)
	if err := errors.Join(<-flushed, <-written); err != nil {
		t.Fatal(err)
	}
	file.Close(t.Context())
	b.published("new:1", changed(content, 1))
}

// Of two handles that are closed side by side one publishes. Others who change the
// file's time meanwhile make the two wait for the same lock, in turns.
func TestClose_sideBySide(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	for i := range 50 {
		name := fmt.Sprintf("new:%d", i)
		file := b.create(name+".sif", content)
		second := b.openWrite(name+".sif", stranger)
		b.flush(file, copier, nil) // the other may still write
		b.published(name, nil)
		draft := b.lookup(name+".sif", copier).(*fsys.Draft)
		stop := make(chan struct{})
		var busy, closing sync.WaitGroup
		for range 4 {
			busy.Go(func() {
				for when := time.Unix(1, 0); ; {
					select {
					case <-stop:
						return
					default:
						_ = draft.SetAttr(context.Background(), fsys.AttrChange{ModTime: &when})
					}
				}
			})
		}
		for _, f := range []*fsys.File{file, second} {
			closing.Go(func() { f.Close(context.Background()) })
		}
		closing.Wait()
		close(stop)
		busy.Wait()
		b.published(name, content)
	}
	if states := b.states(); len(states) != 0 {
		t.Errorf("left in the spool: %v", states)
	}
}

// An image with an overlay is changed in place as on any disk: who opens it again
// shares it, it is published when all have closed it and the overlay is in order,
// and until then the old one is whole.
func TestInPlace(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	disk := make([]byte, 8192) // no more than a superblock: its magic number, and that it is in order
	binary.LittleEndian.PutUint16(disk[1024+56:], 0xEF53)
	binary.LittleEndian.PutUint16(disk[1024+58:], 1)
	clean, off := fsystest.Overlay(t, 40000, 3, disk)
	state := off + 1024 + 58
	b.Service.Put("c/o:1", clean)
	file := b.openWrite("o:1.sif", copier)
	again := b.openWrite("o:1.sif", stranger) // a helper, by its path
	b.write(again, []byte{0, 0}, state)       // mounted
	if err := again.Sync(); err != nil {
		t.Fatal(err)
	}
	b.flush(file, copier, nil)
	b.flush(again, stranger, nil)
	b.published("o:1", clean)
	if _, ok := b.lookup("o:1.sif", fsys.Caller{Thread: 31, Process: 30}).(*fsys.Image); !ok {
		t.Error("others do not see the image meanwhile")
	}
	if _, ok := b.lookup("o:1.sif", fsys.Caller{Thread: 22, Process: stranger.Process}).(*fsys.Draft); !ok {
		t.Error("who writes it does not see it")
	}
	b.write(again, []byte{1, 0}, state) // unmounted
	next := changed(clean, 5)
	b.write(again, next[len(next)-4096:], int64(len(next)-4096))
	file.Close(t.Context())
	b.published("o:1", clean)
	again.Close(t.Context())
	b.published("o:1", next)

	// One that nobody unmounted is kept, and does not replace a good one.
	file = b.openWrite("o:1.sif", copier)
	b.write(file, []byte{0, 0}, state)
	b.flush(file, copier, nil)
	file.Close(t.Context())
	b.published("o:1", next)
	drafts := b.Spool.Drafts()
	if len(drafts) != 1 || drafts[0].State != spool.Incomplete || drafts[0].Error == "" {
		t.Errorf("in the journal: %+v", drafts)
	}
	if err := b.Uploads.Retry(t.Context(), drafts[0].ID, nil); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Retry = %v, want %v", err, backends.ErrCorrupt)
	}
	b.published("o:1", next)
}

// The next container finds what the one before it wrote, though the kernel lets go of
// the image a moment after its last process has ended.
func TestInPlace_next(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{Overwrite: true})
	image := b.lookup("old:1.sif", stranger).(*fsys.Image)
	old := b.Service.Get("c/old:1")
	file := b.openWrite("old:1.sif", copier)
	b.write(file, []byte("x"), int64(len(old)-2000))
	blob, err := image.Open(t.Context())
	if err != nil {
		t.Fatalf("reading while it is changed: %v", err)
	}
	blob.Close()
	b.flush(file, stranger, nil) // the process that had the descriptor last
	released := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() {
		file.Close(context.Background())
		close(released)
	})
	if _, err := image.Open(t.Context()); !errors.Is(err, fsys.ErrRetry) {
		t.Errorf("reading right afterwards: %v, want %v", err, fsys.ErrRetry)
	}
	<-released
}

// Whoever has a published file open can open it again.
func TestOpen_published(t *testing.T) {
	t.Parallel()
	b := newBench(t, catalog.Policy{})
	draft, file, err := b.dir.Create(t.Context(), "new:1.sif", 0o644, copier, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.write(file, content, 0)
	b.flush(file, copier, nil)
	reader, err := draft.Open(t.Context(), stranger, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := reader.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || string(got) != string(content) {
		t.Errorf("reading: %v", err)
	}
	if _, err := draft.Open(t.Context(), stranger, fsys.Write|fsys.Truncate); !errors.Is(err, fsys.ErrRetry) {
		t.Errorf("truncating it: %v, want %v", err, fsys.ErrRetry)
	}
	again, err := draft.Open(t.Context(), stranger, fsys.Write)
	if err != nil {
		t.Fatal(err)
	}
	b.write(again, changed(content, 1), 0)
	file.Close(t.Context())
	b.published("new:1", content)
	again.Close(t.Context())
	b.published("new:1", changed(content, 1))
	reader.Close(t.Context())
	if _, err := draft.Open(t.Context(), stranger, 0); !errors.Is(err, fsys.ErrRetry) {
		t.Errorf("opening when all is closed: %v, want %v", err, fsys.ErrRetry)
	}
}

// Two who write one name at the same time have a file each, and the last one stays.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"new:1.sif", "old:1.sif"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, catalog.Policy{Overwrite: true})
			openTruncated := func(who fsys.Caller) *fsys.File {
				t.Helper()
				for {
					var file *fsys.File
					var err error
					switch n := b.lookup(name, who).(type) {
					case nil:
						_, file, err = b.dir.Create(t.Context(), name, 0o644, who, 0)
					case *fsys.Image:
						err = n.OpenWrite(t.Context(), who, fsys.Truncate)
					case *fsys.Draft:
						file, err = n.Open(t.Context(), who, fsys.Write|fsys.Truncate)
					}
					if err == nil {
						return file
					}
					if !errors.Is(err, fsys.ErrRetry) {
						t.Fatal(err)
					}
				}
			}
			first := openTruncated(copier)
			b.write(first, content[:1000], 0)
			second := openTruncated(stranger)
			b.write(second, changed(content, 2), 0)
			b.write(first, content[1000:], 1000)
			b.flush(second, stranger, nil)
			b.published(name[:5], changed(content, 2))
			second.Close(t.Context())
			b.flush(first, copier, nil)
			first.Close(t.Context())
			b.published(name[:5], content)

			// One that was told to come back and does not is forgotten, and is in nobody's way.
			lost := fsys.Caller{Thread: 41, Process: 40}
			if err := b.lookup(name, copier).(*fsys.Image).OpenWrite(t.Context(), lost, fsys.Truncate); !errors.Is(err, fsys.ErrRetry) {
				t.Fatal(err)
			}
			drafts := b.Spool.Drafts()
			if len(drafts) != 1 {
				t.Fatalf("in the spool: %+v", drafts)
			}
			if err := b.Spool.Discard(drafts[0].ID); err != nil {
				t.Errorf("discarding what nobody opened: %v", err)
			}
			third := openTruncated(copier)
			b.write(third, changed(content, 3), 0)
			b.flush(third, copier, nil)
			third.Close(t.Context())
			b.published(name[:5], changed(content, 3))
			if states := b.states(); len(states) != 0 {
				t.Errorf("left in the spool: %v", states)
			}
		})
	}
}
