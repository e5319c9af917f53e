// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// states gathers what Watch tells.
type states struct {
	mu  sync.Mutex
	all map[Key][]State
}

func watch(c *Cache) *states {
	s := &states{all: map[Key][]State{}}
	c.Watch(func(k Key, st State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all[k] = append(s.all[k], st)
	})
	return s
}

func (s *states) of(k Key) []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[k]
}

// eventually waits until ok, for what other goroutines are about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still no %s", what)
		}
		runtime.Gosched()
	}
}

func mustWait(t *testing.T, b *Blob) {
	t.Helper()
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Fatalf("Wait: %v", err)
	}
}

func mustRead(t *testing.T, b *Blob, content []byte, off, n int64) {
	t.Helper()
	got := make([]byte, n)
	if _, err := b.ReadAt(got, off); err != nil || !bytes.Equal(got, content[off:off+n]) {
		t.Fatalf("ReadAt(%d, %d): %v (or other bytes)", n, off, err)
	}
}

// What is here outlives the cache, with an index or without.
func TestCache_reopen(t *testing.T) {
	t.Parallel()
	for name, index := range map[string]Index{"without index": nil, "with index": &memIndex{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			dir, client := t.TempDir(), r.client(t)
			content := randomBytes(1, 4*mib+5)
			half := randomBytes(2, 6*mib+5)
			img, part := r.image("a", content), r.image("b", half)
			c := openCache(t, dir, Options{Index: index, NoBackground: true})
			mustWait(t, openBlob(t, c, client, img))
			mustRead(t, openBlob(t, c, client, part), half, 3*mib, 2*mib)
			before := map[Key]Info{}
			for info := range c.Infos() {
				before[info.Key] = info
			}
			c.Close()
			sent := r.sent.Load()

			c = openCache(t, dir, Options{Index: index, NoBackground: true})
			for key, want := range before {
				got := c.Info(key)
				if got.State != want.State || got.Size != want.Size || got.Have != want.Have {
					t.Errorf("after reopening %s is %s, %d of %d; was %s, %d of %d", key,
						got.State, got.Have, got.Size, want.State, want.Have, want.Size)
				}
			}
			mustRead(t, openBlob(t, c, client, img), content, 0, 4*mib)
			b := openBlob(t, c, client, part)
			mustRead(t, b, half, 3*mib, 2*mib)
			if now := r.sent.Load(); now != sent {
				t.Errorf("%d bytes fetched of what was here", now-sent)
			}
			mustWait(t, b)
			if now := r.sent.Load() - sent; now != 4*mib+5 {
				t.Errorf("%d bytes fetched for the rest, want %d", now, 4*mib+5)
			}
		})
	}
}

// A memIndex is an index without a disk.
type memIndex struct {
	mu   sync.Mutex
	recs map[Key]Record
}

func (x *memIndex) Load() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, r := range x.recs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (x *memIndex) Save(records ...Record) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.recs == nil {
		x.recs = map[Key]Record{}
	}
	for _, r := range records {
		x.recs[r.Key] = r
	}
	return nil
}

func (x *memIndex) Remove(keys ...string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range keys {
		delete(x.recs, Key(k))
	}
	return nil
}

// The index follows what is on the disk, and a wrong one does no harm.
func TestCache_index(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	dir, client, x := t.TempDir(), r.client(t), &memIndex{}
	content := randomBytes(1, mib)
	img := r.image("a", content)
	c := openCache(t, dir, Options{Index: x})
	mustWait(t, openBlob(t, c, client, img))
	c.Close()
	key := KeyOf("lab", img)
	if got := x.recs[key]; got.State != Cached || got.Size != mib || got.Verified.IsZero() {
		t.Errorf("index holds %+v", got)
	}
	lost := Key(sha256Of([]byte("lost")))
	x.recs[lost] = Record{Key: lost, Size: 5, State: Cached}
	c = openCache(t, dir, Options{Index: x})
	if got := c.Info(lost).State; got != Remote {
		t.Errorf("a blob without files is %s", got)
	}
	if err := c.Remove(key); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if len(x.recs) != 0 {
		t.Errorf("index still holds %v", x.recs)
	}
}

func TestCache_states(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 3*mib)
	img := r.image("a", content)
	key := KeyOf("lab", img)
	c := openCache(t, t.TempDir(), Options{})
	s := watch(c)
	if _, ok := c.Path(key); ok || c.Info(key).State != Remote {
		t.Error("something is here before anything was fetched")
	}
	b, err := c.Blob(t.Context(), r.client(t), img)
	if err != nil {
		t.Fatal(err)
	}
	var progress []int64
	if err := b.Wait(t.Context(), func(n int64) { progress = append(progress, n) }); err != nil {
		t.Fatal(err)
	}
	if len(progress) == 0 || progress[len(progress)-1] != 3*mib {
		t.Errorf("progress = %v", progress)
	}
	if info := c.Info(key); info.Open != 1 || info.Have != 3*mib || info.State != Cached {
		t.Errorf("Info = %+v", info)
	}
	if err := c.Remove(key); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of an open blob = %v, want ErrInUse", err)
	}
	b.Close()
	path, ok := c.Path(key)
	if !ok {
		t.Fatal("no path of a whole blob")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != wholeMode {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	c.Pin(key)
	if err := c.Remove(key); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of a pinned blob = %v, want ErrInUse", err)
	}
	c.Unpin(key)
	if err := c.Remove(key); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if used, _ := c.Usage(); used != 0 {
		t.Errorf("%d bytes in use of an empty cache", used)
	}
	if got := s.of(key); got[len(got)-1] != Remote || got[len(got)-2] != Cached {
		t.Errorf("Watch told %v", got)
	}
	if list, _ := filepath.Glob(filepath.Join(string(c.dir), "blobs/*/*/*")); len(list) > 0 {
		t.Errorf("files left: %v", list)
	}
}

// Anything may be deleted at any time.
func TestCache_deleted(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	dir, client := filepath.Join(t.TempDir(), "cache"), r.client(t)
	content, other := randomBytes(1, 5*mib), randomBytes(2, 2*mib)
	img, img2 := r.image("a", content), r.image("b", other)
	c := openCache(t, dir, Options{NoBackground: true})
	b := openBlob(t, c, client, img)
	whole := openBlob(t, c, client, img2)
	mustWait(t, whole)
	mustRead(t, b, content, 0, mib)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	mustRead(t, whole, other, 5, 100)
	mustRead(t, b, content, 2*mib, mib) // open files go on
	mustWait(t, b)
	mustRead(t, b, content, 4*mib, mib)
	b.Close()
	whole.Close()
	again := openBlob(t, c, client, img2)
	if again.State() == Cached {
		t.Error("a deleted blob is still cached")
	}
	mustRead(t, again, other, 0, 2*mib)
	mustWait(t, again)
	if _, ok := c.Path(again.Key()); !ok {
		t.Error("the cache did not recover from being deleted")
	}
}

// The same key is asked for under a name without a size.
func TestCache_unknownSize(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	content := randomBytes(1, 3*mib+1)
	img := r.image("a", content)
	img.Size, img.Digest = -1, ""
	c := openCache(t, t.TempDir(), Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b, err := c.Blob(t.Context(), client, img)
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if b.State() != Cached {
				t.Errorf("state %s, want all of it here", b.State())
			}
			compareAll(t, b, content)
		})
	}
	wg.Wait()
	if got := r.requests.Load(); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
	img.Digest = sha256Of([]byte("something else"))
	img.Version = "2"
	ctx := t.Context()
	if _, err := c.Blob(ctx, client, img); err == nil {
		t.Error("wrong content was accepted")
	}
	r.put("a", content)
	img.Version = etag(content)
	if _, err := c.Blob(ctx, client, img); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("wrong content: %v, want ErrCorrupt", err)
	}
}

// A fileBackend holds its images as files here.
type fileBackend struct {
	web
	path string
}

func (b *fileBackend) OpenFile(context.Context, backends.Image) (*os.File, error) {
	return os.Open(b.path)
}

func TestCache_localFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("a local image"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := backends.NewClient("local", &fileBackend{path: path}, backends.ClientOptions{})
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, client, backends.Image{Ref: backends.Ref{Name: "a", Tag: "1"}, Size: 13})
	mustRead(t, b, []byte("a local image"), 2, 5)
	if f, ok := b.File(); !ok || f.Name() != path || b.Key() != "" || b.State() != Cached || !b.Has(0, 13) {
		t.Errorf("File = %v, %v; key %q, state %s", f, ok, b.Key(), b.State())
	}
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestCache_closed(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	gate := make(chan struct{})
	defer close(gate)
	content := randomBytes(1, 4*mib)
	img := r.image("a", content)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, client, img)
	mustRead(t, b, content, 0, 10)
	r.set(faults{hang: gate})
	read := make(chan error)
	go func() {
		_, err := b.ReadAt(make([]byte, 10), 3*mib)
		read <- err
	}()
	eventually(t, "a request", func() bool { return r.open.Load() > 0 })
	c.Close()
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("waiting read = %v, want ErrClosed", err)
	}
	if _, err := b.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read afterwards = %v, want ErrClosed", err)
	}
	if err := b.Wait(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait afterwards = %v, want ErrClosed", err)
	}
	if _, err := c.Blob(t.Context(), client, img); !errors.Is(err, ErrClosed) {
		t.Errorf("Blob afterwards = %v, want ErrClosed", err)
	}
	b.Close()
}

func TestCache_hints(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 12*mib)
	calls := make(chan int64, 9)
	c := openCache(t, t.TempDir(), Options{NoBackground: true,
		Hints: func(ctx context.Context, rd ReaderAtContext, size int64) []Range {
			head := make([]byte, 100)
			if _, err := rd.ReadAtContext(ctx, head, 0); err != nil || !bytes.Equal(head, content[:100]) {
				t.Errorf("a hint's read: %v", err)
			}
			calls <- size
			return []Range{{Off: size - 2*mib, N: 9 * mib}, {Off: -5, N: 10}, {Off: size + 1, N: 1}}
		}})
	client := r.client(t)
	b := openBlob(t, c, client, r.image("a", content))
	mustRead(t, b, content, 6*mib, 10)
	if len(calls) > 0 {
		t.Error("asked for hints for a read in the middle")
	}
	mustRead(t, b, content, 0, 10)
	if size := <-calls; size != 12*mib {
		t.Errorf("hints were asked with size %d", size)
	}
	mustRead(t, b, content, 11*mib, mib) // joins what the hints began
	mustRead(t, b, content, 10*mib, mib)
	if got := r.sent.Load(); got > 4*mib {
		t.Errorf("%d bytes fetched for four chunks", got)
	}
	mustRead(t, b, content, 0, 10)
	mustRead(t, openBlob(t, c, client, r.image("a", content)), content, 0, 10)
	if len(calls) > 0 {
		t.Error("asked for hints twice")
	}
}

func TestKeyOf(t *testing.T) {
	t.Parallel()
	img := backends.Image{Ref: backends.Ref{Collection: "c", Name: "n", Tag: "t"}, Version: "v", Digest: "md5:00112233445566778899aabbccddeeff"}
	change := map[string]func(*backends.Image){
		"collection": func(i *backends.Image) { i.Ref.Collection = "d" },
		"name":       func(i *backends.Image) { i.Ref.Name = "m" },
		"boundary":   func(i *backends.Image) { i.Ref.Collection, i.Ref.Name = "cn", "" },
		"tag":        func(i *backends.Image) { i.Ref.Tag = "u" },
		"version":    func(i *backends.Image) { i.Version = "w" },
		"no version": func(i *backends.Image) { i.Version = "" },
		"bad digest": func(i *backends.Image) { i.Digest, i.Version = "sha256:../../../etc/passwd", "" },
		"sha256":     func(i *backends.Image) { i.Digest = sha256Of(nil) },
	}
	keys := map[Key]string{KeyOf("lab", img): "itself", KeyOf("hub", img): "remote"}
	for name, fn := range change {
		other := img
		fn(&other)
		key := KeyOf("lab", other)
		if was, ok := keys[key]; ok {
			t.Errorf("%s has the key of %s", name, was)
		}
		if !key.valid() {
			t.Errorf("%s: key %q is not valid", name, key)
		}
		keys[key] = name
	}
	img.Digest = sha256Of(nil)
	if got := KeyOf("hub", img); got != Key(img.Digest) {
		t.Errorf("KeyOf = %s, want the digest", got)
	}
}

// A cache's own missing files never read as "no such image".
func TestLocalError(t *testing.T) {
	t.Parallel()
	_, err := os.Open(filepath.Join(t.TempDir(), "missing"))
	if got := localError("open", err); errors.Is(got, fs.ErrNotExist) || got == nil {
		t.Errorf("localError = %v", got)
	}
	if got := localError("open", os.ErrClosed); !errors.Is(got, ErrClosed) {
		t.Errorf("localError = %v, want ErrClosed", got)
	}
}

// Reads of what is here allocate nothing.
func TestBlob_allocations(t *testing.T) {
	r := newRegistry(t)
	content := randomBytes(1, 3*mib)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), r.image("a", content))
	p := make([]byte, 4096)
	mustRead(t, b, content, 0, mib)
	ctx := context.Background()
	read := func() {
		if _, err := b.ReadAtContext(ctx, p, 8192); err != nil {
			t.Error(err)
		}
	}
	if n := testing.AllocsPerRun(100, read); n > 0 {
		t.Errorf("%v allocations for a read of a partial blob", n)
	}
	mustWait(t, b)
	if n := testing.AllocsPerRun(100, read); n > 0 {
		t.Errorf("%v allocations for a read of a whole blob", n)
	}
}

func BenchmarkBlobReadAt(b *testing.B) {
	r := newRegistry(b)
	content := randomBytes(1, 16*mib)
	c := openCache(b, b.TempDir(), Options{})
	blob := openBlob(b, c, r.client(b), r.image("a", content))
	if err := blob.Wait(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	f, _ := blob.File()
	for name, rd := range map[string]func([]byte, int64) (int, error){"blob": blob.ReadAt, "file": f.ReadAt} {
		for size, label := range map[int64]string{4096: "4K", 128 << 10: "128K"} {
			b.Run(name+"/"+label, func(b *testing.B) {
				p := make([]byte, size)
				b.SetBytes(size)
				b.ReportAllocs()
				var off int64
				for b.Loop() {
					if _, err := rd(p, off); err != nil {
						b.Fatal(err)
					}
					off = (off + size) % (16*mib - size)
				}
			})
		}
	}
}

func BenchmarkBlobCold(b *testing.B) {
	for _, latency := range []time.Duration{0, 20 * time.Millisecond} {
		b.Run(latency.String(), func(b *testing.B) {
			r := newRegistry(b)
			r.set(faults{latency: latency})
			content := randomBytes(1, 128*mib)
			img, client := r.image("a", content), r.client(b)
			b.SetBytes(int64(len(content)))
			p := make([]byte, 128<<10)
			for b.Loop() {
				c := openCache(b, b.TempDir(), Options{})
				blob := openBlob(b, c, client, img)
				for off := int64(0); off < blob.Size(); off += int64(len(p)) {
					if _, err := blob.ReadAt(p, off); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				c.Close()
				b.StartTimer()
			}
		})
	}
}
