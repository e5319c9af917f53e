// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(memoryEnv); order != "" {
		measureMemory(order)
		return
	}
	goleak.VerifyTestMain(m)
}

// A bench is a catalogue with one service called lab, and its state.
type bench struct {
	*catalog.Catalog
	*uploads.Uploads
	*verbs.Verbs
	t      testing.TB
	svc    *service
	store  *keptStore
	dir    string // of cache, spool and records
	policy catalog.Policy
	extra  []catalog.Remote

	mu     sync.Mutex
	events []catalog.Event
}

// A keptStore outlives the catalogue: a restart finds it again.
type keptStore struct{ index.Store }

func (keptStore) Close() error { return nil }

func newBench(t testing.TB, svc *service, options ...func(*bench)) *bench {
	t.Helper()
	b := &bench{t: t, svc: svc, dir: t.TempDir(), store: &keptStore{mem.New()}}
	for _, o := range options {
		o(b)
	}
	b.open()
	t.Cleanup(func() { b.close() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	remotes := append([]catalog.Remote{{Name: "lab", Type: "test", URL: "https://lab.example.org", Client: b.svc.client("lab"), Policy: b.policy}}, b.extra...)
	c, err := catalog.New(catalog.Options{
		Remotes: remotes, Records: filepath.Join(b.dir, "records"), State: b.state,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.use(c)
	c.Watch(func(e catalog.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	})
}

func (b *bench) state() (*catalog.State, error) {
	blobs, err := cache.Open(filepath.Join(b.dir, "cache"), cache.Options{Index: index.Blobs(b.store)})
	if err != nil {
		return nil, err
	}
	drafts, err := spool.Open(filepath.Join(b.dir, "spool"), spool.Options{Reserve: -1})
	return &catalog.State{Index: index.New(b.store), Cache: blobs, Spool: drafts}, err
}

// use puts the bench to another catalogue.
func (b *bench) use(c *catalog.Catalog) {
	b.Catalog, b.Uploads = c, uploads.New(c, nil)
	b.Verbs = verbs.New(c, b.Uploads, verbs.Options{Types: all.Types, Default: "lab"})
}

// Start begins the background work of a mount.
func (b *bench) Start(ctx context.Context) error {
	return errors.Join(b.Catalog.Start(ctx), b.Uploads.Start(ctx))
}

func (b *bench) close() {
	b.t.Helper()
	b.Drain(context.Background())
	if err := b.Close(); err != nil {
		b.t.Errorf("Close: %v", err)
	}
}

// restart is a new process with the same directories.
func (b *bench) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

// took returns the events since the last call, without those of blobs.
func (b *bench) took() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, e := range b.events {
		switch e.Kind {
		case catalog.ListingChanged:
			all = append(all, "listing "+e.Collection)
		case catalog.ImageChanged:
			all = append(all, "changed "+e.Ref.String())
		case catalog.ImageGone:
			all = append(all, "gone "+e.Ref.String())
		}
	}
	b.events = nil
	slices.Sort(all)
	return all
}

// names returns what List yields, in short.
func (b *bench) names(collection string) []string {
	b.t.Helper()
	names, err := b.tryNames(collection)
	if err != nil {
		b.t.Fatalf("List(%q): %v", collection, err)
	}
	return names
}

func (b *bench) tryNames(collection string) ([]string, error) {
	var names []string
	for e, err := range b.List(context.Background(), "lab", collection) {
		if err != nil {
			return names, err
		}
		if e.Collection != "" {
			names = append(names, e.Collection+"/")
			continue
		}
		names = append(names, e.Image.Ref.Name+":"+e.Image.Ref.Tag)
	}
	return names, nil
}

func (b *bench) lookup(ref string) (backends.Image, error) {
	return b.Lookup(context.Background(), "lab", mustRef(b.t, ref))
}

func (b *bench) mustLookup(ref string) backends.Image {
	b.t.Helper()
	img, err := b.lookup(ref)
	if err != nil {
		b.t.Fatalf("Lookup(%s): %v", ref, err)
	}
	return img
}

func wantDiff(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// tiny is a whole squashfs image that differs for each seed.
func tiny(t testing.TB, seed string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "tiny.simg"))
	if err != nil {
		t.Fatal(err)
	}
	return append(content, seed...)
}

func TestNew_twins(t *testing.T) {
	t.Parallel()
	_, err := catalog.New(catalog.Options{Remotes: []catalog.Remote{{Name: "a"}, {Name: "b"}, {Name: "a"}}})
	wantErr(t, "New", err, fs.ErrInvalid)
}

func TestRemote(t *testing.T) {
	t.Parallel()
	c, err := catalog.New(catalog.Options{Remotes: []catalog.Remote{{Name: "lab"}, {Name: "hub"}}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range c.Remotes() {
		names = append(names, r.Name)
	}
	wantDiff(t, "Remotes", names, []string{"hub", "lab"})
	_, err = c.Remote("lba")
	wantErr(t, "Remote", err, fs.ErrNotExist)
	if !strings.Contains(err.Error(), "lab") {
		t.Errorf("error %q does not name the nearest remote", err)
	}
	_, err = c.Lookup(t.Context(), "lab", mustRef(t, "a/b"))
	wantErr(t, "Lookup on an unopened remote", err, fs.ErrInvalid) // no State
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("vsoch/hello:1", []byte("1"))
		svc.put("vsoch/hello:2", []byte("2"))
		svc.put("vsoch/deep/er/x:1", []byte("3"))
		b := newBench(t, svc)
		wantDiff(t, "root", b.names(""), []string{"vsoch/"})
		wantDiff(t, "vsoch", b.names("vsoch"), []string{"vsoch/deep/", "hello:1", "hello:2"})
		wantDiff(t, "again", b.names("vsoch"), []string{"vsoch/deep/", "hello:1", "hello:2"})
		if n := svc.count("list"); n != 2 {
			t.Errorf("%d listings asked for, want 2", n)
		}
		b.took()

		// What the registry lists meanwhile is shown once the listing is stale
		// and was made again behind our back.
		svc.put("vsoch/hello:3", []byte("4"))
		svc.put("vsoch/hello:1", []byte("other"))
		svc.drop("vsoch/hello:2")
		svc.drop("vsoch/deep/er/x:1")
		wantDiff(t, "fresh", b.names("vsoch"), []string{"vsoch/deep/", "hello:1", "hello:2"})
		time.Sleep(61 * time.Second)
		svc.set(func() { svc.slow = func(string) { time.Sleep(time.Second) } })
		wantDiff(t, "stale", b.names("vsoch"), []string{"vsoch/deep/", "hello:1", "hello:2"})
		time.Sleep(2 * time.Second)
		svc.set(func() { svc.slow = nil })
		wantDiff(t, "events", b.took(), []string{"changed vsoch/hello:1", "gone vsoch/hello:2", "listing vsoch"})
		wantDiff(t, "refreshed", b.names("vsoch"), []string{"hello:1", "hello:3"})
		if n := svc.count("stat"); n != 0 {
			t.Errorf("listing asked %d times about single images", n)
		}

		_, err := b.tryNames("nowhere")
		wantErr(t, "missing collection", err, fs.ErrNotExist)
	})
}

func TestList_unchangedWritesNothing(t *testing.T) {
	t.Parallel()
	svc := newService()
	for i := range 100 {
		svc.put(fmt.Sprintf("c/x:%03d", i), []byte{byte(i)})
	}
	b := newBench(t, svc)
	b.names("c")
	counting := &countingStore{Store: b.store.Store}
	b.store.Store = counting
	b.took()
	if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
		t.Fatal(err)
	}
	if counting.changes != 1 {
		t.Errorf("%d changes stored, want only the header", counting.changes)
	}
	wantDiff(t, "events", b.took(), []string(nil))
}

func TestList_offline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		b.names("c")
		svc.set(func() { svc.down = true })
		b.restart()
		b.took()
		time.Sleep(time.Hour)
		for range 3 {
			wantDiff(t, "offline after a restart", b.names("c"), []string{"x:1"})
			synctest.Wait()
		}
		if img := b.mustLookup("c/x:1"); img.Size != 1 {
			t.Errorf("offline lookup: %+v", img)
		}
		_, err := b.tryNames("never")
		wantErr(t, "never listed", err, backends.ErrUnavailable)
		wantErr(t, "Refresh", b.Refresh(t.Context(), "lab", "c"), backends.ErrUnavailable)
		wantDiff(t, "events", b.took(), []string(nil))
	})
}

func TestList_failureIsLatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.set(func() { svc.fault = func(string) int { return 401 } })
		b := newBench(t, svc)
		for range 3 {
			_, err := b.tryNames("c")
			wantErr(t, "List", err, backends.ErrUnauthorized)
		}
		if n := svc.count("list"); n != 1 {
			t.Errorf("asked %d times, want 1", n)
		}
		time.Sleep(6 * time.Second)
		svc.put("c/x:1", []byte("1"))
		svc.set(func() { svc.fault = nil })
		wantDiff(t, "logged in", b.names("c"), []string{"x:1"})
	})
}

func TestList_hangingRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		svc.set(func() { svc.slow = func(string) { time.Sleep(10 * time.Minute) } })
		start := time.Now()
		_, err := b.tryNames("c")
		wantErr(t, "List", err, context.DeadlineExceeded)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, "Refresh", b.Refresh(ctx, "lab", "c"), context.DeadlineExceeded)
		if d := time.Since(start); d > 15*time.Minute {
			t.Errorf("it took %v", d)
		}
		time.Sleep(time.Hour) // the sleeping requests end
	})
}

func TestList_goneCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("a/x:1", []byte("1"))
		svc.put("a/b/y:1", []byte("1"))
		svc.put("ab/z:1", []byte("1"))
		b := newBench(t, svc)
		for _, c := range []string{"", "a", "a/b", "ab"} {
			b.names(c)
		}
		svc.drop("a/x:1")
		svc.drop("a/b/y:1")
		b.took()
		wantErr(t, "Refresh", b.Refresh(t.Context(), "lab", "a"), fs.ErrNotExist)
		wantDiff(t, "events", b.took(), []string{"listing ", "listing a"})
		wantDiff(t, "root", b.names(""), []string{"ab/"})
		wantDiff(t, "ab", b.names("ab"), []string{"z:1"})
		if is, err := b.IsCollection(t.Context(), "lab", "a/b"); is || err != nil {
			t.Errorf("IsCollection(a/b) = %v, %v", is, err)
		}
	})
}

func TestList_unlistable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.noList = true
		svc.put("org/team/x:1", tiny(t, ""))
		b := newBench(t, svc)
		wantDiff(t, "root", b.names(""), []string(nil))
		if is, err := b.IsCollection(t.Context(), "lab", "org"); !is || err != nil {
			t.Errorf("IsCollection = %v, %v", is, err)
		}
		img := b.mustLookup("org/team/x:1")
		wantDiff(t, "looked up, not opened", b.names("org/team"), []string(nil))
		b.took()
		blob, err := b.Blob(t.Context(), "lab", img)
		if err != nil {
			t.Fatal(err)
		}
		blob.Close()
		wantDiff(t, "events", b.took(), []string{"listing ", "listing org", "listing org/team"})
		b.restart()
		wantDiff(t, "root", b.names(""), []string{"org/"})
		wantDiff(t, "org", b.names("org"), []string{"org/team/"})
		wantDiff(t, "org/team", b.names("org/team"), []string{"x:1"})
		svc.drop("org/team/x:1")
		time.Sleep(2 * time.Minute)
		_, err = b.lookup("org/team/x:1")
		wantErr(t, "deleted", err, fs.ErrNotExist)
		wantDiff(t, "org/team", b.names("org/team"), []string(nil))
	})
}

// A service may tell of some collections alone, those of an account, say. Another
// one that was used stays, though no listing has it.
func TestList_untold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.untold = "library"
		svc.put("library/x:1", tiny(t, ""))
		svc.put("mine/y:1", tiny(t, "y"))
		b := newBench(t, svc)
		wantDiff(t, "root", b.names(""), []string{"mine/"})
		wantDiff(t, "library", b.names("library"), []string{"x:1"})
		wantDiff(t, "listed, not opened", b.names(""), []string{"mine/"})
		b.took()
		blob, err := b.Blob(t.Context(), "lab", b.mustLookup("library/x:1"))
		if err != nil {
			t.Fatal(err)
		}
		blob.Close()
		wantDiff(t, "events", b.took(), []string{"listing "})
		wantDiff(t, "opened", b.names(""), []string{"library/", "mine/"})
		time.Sleep(time.Hour)
		if err := b.Refresh(t.Context(), "lab", ""); err != nil {
			t.Fatal(err)
		}
		wantDiff(t, "listed again", b.names(""), []string{"library/", "mine/"})
		svc.drop("library/x:1")
		wantErr(t, "Refresh", b.Refresh(t.Context(), "lab", "library"), fs.ErrNotExist)
		wantDiff(t, "gone", b.names(""), []string{"mine/"})
	})
}

// countingStore counts changes.
type countingStore struct {
	index.Store
	changes int
}

func (s *countingStore) Apply(changes ...index.KV) error {
	s.changes += len(changes)
	return s.Store.Apply(changes...)
}
