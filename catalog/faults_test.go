// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A weakStore takes so many more changes, then none: a full disk, or a process
// that was killed.
type weakStore struct {
	index.Store
	left atomic.Int64
}

func (s *weakStore) Apply(changes ...index.KV) error {
	for _, c := range changes {
		if s.left.Add(-1) < 0 {
			return fmt.Errorf("index: %w", syscall.ENOSPC)
		}
		if err := s.Store.Apply(c); err != nil {
			return err
		}
	}
	return nil
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", []byte("1"))
	weak := &weakStore{}
	b := newBench(t, svc, func(b *bench) { weak.Store = b.store.Store; b.store.Store = weak })
	wantDiff(t, "names", b.names("c"), []string{"x:1"})
	wantDiff(t, "names again", b.names("c"), []string{"x:1"})
	if img := b.mustLookup("c/x:1"); img.Size != 1 {
		t.Errorf("Lookup: %+v", img)
	}
	publish(t, b, "c/y:1", tiny(t, ""))
	if _, err := b.Remove(t.Context(), "lab://c/x:1", ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
	weak.left.Store(1000)
	wantDiff(t, "names with room", b.names("c"), []string{"y:1"})
}

// A listing that was cut off at any change is made again, and is right then.
func TestRefresh_cutOff(t *testing.T) {
	t.Parallel()
	for left := range int64(30) {
		synctest.Test(t, func(t *testing.T) {
			svc := newService()
			for i := range 10 {
				svc.put(fmt.Sprintf("c/x:%d", i), []byte("1"))
				svc.put(fmt.Sprintf("c/sub%d/x:1", i), []byte("1"))
			}
			weak := &weakStore{}
			weak.left.Store(1 << 30)
			b := newBench(t, svc, func(b *bench) { weak.Store = b.store.Store; b.store.Store = weak })
			b.names("c")
			want := []string{}
			for i := range 5 {
				svc.drop(fmt.Sprintf("c/x:%d", i))
				svc.drop(fmt.Sprintf("c/sub%d/x:1", i))
				svc.put(fmt.Sprintf("c/x:%d", i+10), []byte("1"))
			}
			for i := 5; i < 10; i++ {
				want = append(want, fmt.Sprintf("c/sub%d/", i))
			}
			for _, i := range []int{10, 11, 12, 13, 14, 5, 6, 7, 8, 9} {
				want = append(want, fmt.Sprintf("x:%d", i))
			}
			weak.left.Store(left)
			b.Refresh(t.Context(), "lab", "c")
			b.restart()
			weak.left.Store(1 << 30)
			time.Sleep(time.Hour) // it was due anyway
			b.names("c")
			synctest.Wait()
			wantDiff(t, fmt.Sprintf("cut off after %d changes", left), b.names("c"), want)
		})
	}
}

// Times of an earlier run that lie in the future, because the clock was set
// back, count as out of date.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", []byte("1"))
	b := newBench(t, svc)
	b.names("c")
	b.mustLookup("c/x:1")
	b.close()
	synctest.Test(t, func(t *testing.T) { // whose clock is decades behind
		b.open()
		before := svc.count("list")
		b.names("c")
		synctest.Wait()
		if n := svc.count("list") - before; n != 1 {
			t.Errorf("a listing from the future was refreshed %d times, want 1", n)
		}
		svc.put("c/x:1", []byte("22"))
		b.Expire()
		time.Sleep(time.Second)
		if img := b.mustLookup("c/x:1"); img.Size != 2 {
			t.Errorf("Lookup = %+v", img)
		}
		b.close()
	})
	b.open()
}

// An image is listed under the name that the registry gives it.
func TestLookup_otherSpelling(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.noList = true
	svc.put("library/alpine:3", tiny(t, ""))
	svc.images[mustRef(t, "library/Alpine:3")] = svc.images[mustRef(t, "library/alpine:3")]
	b := newBench(t, svc)
	img := b.mustLookup("library/Alpine:3")
	wantDiff(t, "the registry's name", img.Ref.Name, "alpine")
	read(t, b, img)
	wantDiff(t, "names", b.names("library"), []string{"alpine:3"})
	asked := svc.count("stat")
	b.mustLookup("library/Alpine:3")
	b.mustLookup("library/alpine:3")
	if n := svc.count("stat") - asked; n != 0 {
		t.Errorf("%d more questions", n)
	}
}

// What the registry has under another name is not written over, whatever is allowed:
// a copy is refused before it begins, and a push of the very same bytes too, for
// nothing would be under the name that was given.
func TestTarget_otherSpelling(t *testing.T) {
	t.Parallel()
	for _, policy := range []catalog.Policy{{}, {Overwrite: true}} {
		svc := newService()
		svc.put("library/alpine:3", tiny(t, ""))
		svc.images[mustRef(t, "library/Alpine:3")] = svc.images[mustRef(t, "library/alpine:3")]
		b := newBench(t, svc, func(b *bench) { b.policy = policy })
		_, err := b.Create(t.Context(), uploads.Destination{Remote: "lab", Ref: mustRef(t, "library/Alpine:3"), Format: "simg"})
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "library/alpine:3") {
			t.Errorf("%+v: Create = %v, want a refusal with the registry's name", policy, err)
		}
		for _, text := range []string{"", "other"} {
			file := filepath.Join(t.TempDir(), "image.simg")
			if err := os.WriteFile(file, tiny(t, text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := b.Push(t.Context(), file, "lab://library/Alpine:3", verbs.PushOptions{Force: true}, nil)
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%+v: Push of %q = %v, want fs.ErrInvalid", policy, text, err)
			}
		}
		if n := svc.count("push"); n != 0 {
			t.Errorf("%d pushes", n)
		}
	}
}

func TestStart_watches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		svc.put("c/d/x:1", []byte("1"))
		w := watcher{remote{&http.Client{Transport: svc}}, make(chan []byte)}
		b := newBench(t, svc, func(b *bench) {
			b.extra = []catalog.Remote{{Name: "live", Client: backends.NewClient("live", w, backends.ClientOptions{})}}
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		list := func(collection string) (names []string) {
			for e, err := range b.List(t.Context(), "live", collection) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Collection == "" {
					names = append(names, e.Image.Ref.Tag)
				}
			}
			return names
		}
		list("c")
		list("c/d")
		svc.put("c/x:2", []byte("1"))
		svc.put("c/d/x:2", []byte("1"))
		b.took()
		change := func(c backends.Change) {
			text, _ := json.Marshal(c)
			w.changes <- text
			synctest.Wait()
		}
		change(backends.Change{Collection: "c"})
		wantDiff(t, "events", b.took(), []string{"listing c"})
		wantDiff(t, "c", list("c"), []string{"1", "2"})
		wantDiff(t, "c/d, of which nothing was said", list("c/d"), []string{"1"})
		change(backends.Change{Collection: "", Below: true})
		wantDiff(t, "events", b.took(), []string{"listing c", "listing c/d"})
		list("c/d")
		synctest.Wait()
		wantDiff(t, "c/d", list("c/d"), []string{"1", "2"})
	})
}

// watcher is told of changes by a stream.
type watcher struct {
	remote
	changes chan []byte
}

func (w watcher) Watch(ctx context.Context) iter.Seq2[backends.Change, error] {
	return func(yield func(backends.Change, error) bool) {
		for {
			select {
			case text := <-w.changes:
				var c backends.Change
				if err := json.Unmarshal(text, &c); !yield(c, err) || err != nil {
					return
				}
			case <-ctx.Done():
				yield(backends.Change{}, ctx.Err())
				return
			}
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	b := newBench(t, newService())
	b.names("")
	b.close()
	_, err := b.lookup("c/x:1")
	wantErr(t, "Lookup", err, catalog.ErrClosed)
	_, err = b.tryNames("c")
	wantErr(t, "List", err, catalog.ErrClosed)
	if errors.Is(err, fs.ErrNotExist) {
		t.Error("a closed catalogue reads as a missing image")
	}
}

// A goneStore is one whose directory was removed under it: what it had can be read,
// nothing can be written, and the errors are those of missing files.
type goneStore struct {
	index.Store
	gone atomic.Bool
}

func (s *goneStore) Apply(changes ...index.KV) error {
	if s.gone.Load() {
		return &fs.PathError{Op: "statfs", Path: "/index", Err: syscall.ENOENT}
	}
	return s.Store.Apply(changes...)
}

// Without a place to keep listings they are shown as the registry tells them: never
// empty, never as they were for ever.
func TestGoneIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		svc.put("d/x:1", []byte("1"))
		gone := &goneStore{}
		b := newBench(t, svc, func(b *bench) { gone.Store = b.store.Store; b.store.Store = gone })
		wantDiff(t, "names", b.names("c"), []string{"x:1"})
		gone.gone.Store(true)
		root := b.names("")
		slices.Sort(root)
		wantDiff(t, "the root, which was never listed", root, []string{"c/", "d/"})
		wantDiff(t, "a collection that was never listed", b.names("d"), []string{"x:1"})
		svc.put("c/y:1", []byte("1"))
		time.Sleep(2 * time.Minute)
		b.names("c") // finds out that the listing cannot be refreshed
		for range 3 {
			synctest.Wait()
			got := b.names("c")
			slices.Sort(got)
			wantDiff(t, "a collection that has changed", got, []string{"x:1", "y:1"})
			time.Sleep(time.Minute)
		}
		if _, err := b.tryNames("none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List of what is not there: %v", err)
		}
	})
}

// What was pushed and deleted here shows here, also when the index cannot be written
// any more: its directory was deleted under the program.
func TestIndexDeleted(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/a:1", []byte("1"))
	svc.put("c/m:1", []byte("2"))
	index := filepath.Join(t.TempDir(), "index")
	db, err := badger.Open(index, badger.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := newBench(t, svc, func(b *bench) { b.store.Store = db })
	wantDiff(t, "names", b.names("c"), []string{"a:1", "m:1"})
	if err := os.RemoveAll(index); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"z:1", "b:1"} {
		publish(t, b, "c/"+name, tiny(t, name))
	}
	publish(t, b, "new/x:1", tiny(t, "x"))
	wantDiff(t, "names", b.names("c"), []string{"a:1", "b:1", "m:1", "z:1"})
	wantDiff(t, "names of a new collection", b.names("new"), []string{"x:1"})
	if _, err := b.Remove(t.Context(), "lab://c/m:1", ""); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "names without one", b.names("c"), []string{"a:1", "b:1", "z:1"})
	if err := os.Mkdir(index, 0o700); err != nil { // so that closing it has nothing to say
		t.Fatal(err)
	}
}
