// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
)

// A container is a container image on a registry, and the file that is to be made of it.
type container struct {
	registry *registry
	parts    backends.Layers
	image    backends.Image
	file     []byte

	mu    sync.Mutex // guards the field below
	unfit error
}

// A layerWeb is the backend for a registry with one container image.
type layerWeb struct {
	*web
	c *container
}

func (b *layerWeb) Layers(context.Context, backends.Image) (backends.Layers, error) {
	return b.c.parts, nil
}

func (b *layerWeb) Unfit(_ backends.Image, why error) {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.unfit = why
}

func (c *container) client(t testing.TB) *backends.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(tr.CloseIdleConnections)
	return backends.NewClient("lab", &layerWeb{&web{url: c.registry.URL, http: &http.Client{Transport: tr}}, c},
		backends.ClientOptions{MaxElapsed: time.Minute, Origin: c.registry.URL})
}

// A testLayer is a layer of a container that a test makes.
type testLayer struct {
	tar   []byte
	blob  []byte
	media string
	bound int64 // 0: the size of the tar
	notes map[string]string
}

func gzipped(t testing.TB, tar []byte) testLayer {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(tar); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return testLayer{tar: tar, blob: b.Bytes(), media: ocispec.MediaTypeImageLayerGzip}
}

func zstandard(t testing.TB, tar []byte) testLayer {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return testLayer{tar: tar, blob: w.EncodeAll(tar, nil), media: ocispec.MediaTypeImageLayerZstd}
}

func plain(tar []byte) testLayer {
	return testLayer{tar: tar, blob: tar, media: ocispec.MediaTypeImageLayer}
}

// randomTar returns a tar of about that size: files of all sizes, half of their bytes
// compressible.
func randomTar(t testing.TB, seed uint64, size int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; b.Len() < size; i++ {
		n := min(1<<r.IntN(21), max(size-b.Len(), 1))
		text := make([]byte, n)
		for j := range text {
			text[j] = "abcdefghijklmnop"[r.IntN(16)]
		}
		h := &tar.Header{Name: fmt.Sprintf("d%d/f%d-%d", i%7, seed, i), Mode: 0o644, Size: int64(n), ModTime: time.Unix(int64(i), 0), Typeflag: tar.TypeReg}
		if i%50 == 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": strings.Repeat("x", 700)}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newContainer puts an image of layers on a registry.
func newContainer(t testing.TB, all ...testLayer) *container {
	t.Helper()
	c := &container{registry: newRegistry(t)}
	var m ocispec.Manifest
	var config ocispec.Image
	config.Architecture, config.OS = "amd64", "linux"
	config.Config.Cmd = []string{"sh"}
	var tars []int64
	tree := vsif.NewTree()
	for _, l := range all {
		d := ocispec.Descriptor{MediaType: l.media, Digest: digest.FromBytes(l.blob), Size: int64(len(l.blob)), Annotations: l.notes}
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l.tar))
		bound := l.bound
		if bound == 0 {
			bound = int64(len(l.tar))
		}
		c.parts.Bounds = append(c.parts.Bounds, bound)
		tars = append(tars, int64(len(l.tar)))
		name := d.Digest.Encoded()
		c.registry.put(name, l.blob)
		c.parts.Blobs = append(c.parts.Blobs, backends.Image{Ref: backends.Ref{Name: name, Tag: "1"}, Size: d.Size, Digest: d.Digest.String()})
		if err := tree.Add(entriesOf(t, l.tar)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if c.parts.Config, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(c.parts.Config), Size: int64(len(c.parts.Config))}
	if c.parts.Manifest, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	plan, err := vsif.NewPlan(int64(len(c.parts.Manifest)), m.Config.Size, c.parts.Bounds)
	if err != nil {
		t.Fatal(err)
	}
	built, err := plan.Build(tree, vsif.Source{Manifest: c.parts.Manifest, Config: c.parts.Config, Bounds: c.parts.Bounds, Tars: tars})
	if err != nil {
		t.Fatal(err)
	}
	c.file = make([]byte, plan.Size)
	for i, l := range all { // of those with tables of contents it is another one
		copy(c.file[plan.Layers[i].Offset:], l.tar)
	}
	for _, p := range built.Pieces {
		copy(c.file[p.Offset:], p.Text)
	}
	c.image = backends.Image{Ref: backends.Ref{Name: "image", Tag: "1"}, Size: plan.Size, Digest: vsif.Digest(c.parts.Manifest),
		Version: digest.FromBytes(c.parts.Manifest).String(), Format: backends.FormatSIF}
	return c
}

// entriesOf reads the headers of a tar.
func entriesOf(t testing.TB, data []byte) (all []vsif.Entry) {
	t.Helper()
	in := bytes.NewReader(data)
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok, err := vsif.FromHeader(h, in.Size()-int64(in.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			all = append(all, e)
		}
	}
}

func (c *container) compressed() (n int64) {
	for _, b := range c.parts.Blobs {
		n += b.Size
	}
	return n
}

// check reads n bytes at random places.
func (c *container) check(t testing.TB, b *Blob, reads int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for range reads {
		off := r.Int64N(int64(len(c.file)))
		p := make([]byte, min(1+r.Int64N(100_000), int64(len(c.file))-off))
		if _, err := b.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("read at %d: %v", off, err)
		}
		if !bytes.Equal(p, c.file[off:off+int64(len(p))]) {
			t.Fatalf("%d bytes at %d differ", len(p), off)
		}
	}
}

// checkWhole compares the file that the kernel reads.
func (c *container) checkWhole(t testing.TB, b *Blob) {
	t.Helper()
	f, ok := b.File()
	if !ok {
		t.Fatal("it is not whole")
	}
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(c.file))+1)); err != nil || !bytes.Equal(got, c.file) {
		t.Errorf("the whole file: %v (or other bytes)", err)
	}
}

// The first reader of a container image makes each layer come in once, and all bytes are
// right; evicted, each part of it comes by itself.
func TestLayered(t *testing.T) {
	tar := randomTar(t, 1, 10<<20)
	c := newContainer(t, gzipped(t, tar), plain(randomTar(t, 2, 2<<20)), zstandard(t, randomTar(t, 3, 2<<20)), gzipped(t, randomTar(t, 4, 1000)))
	dir, client := t.TempDir(), c.client(t)
	cache := openCache(t, dir, Options{StrictSize: -1})
	b := openBlob(t, cache, client, c.image)
	head := make([]byte, 4096)
	if _, err := b.ReadAt(head, 0); err != nil || !bytes.Equal(head, c.file[:4096]) {
		t.Fatalf("the head: %v (or other bytes)", err)
	}
	c.check(t, b, 50)
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := c.registry.sentInAll(t), c.compressed(); got > want*102/100 {
		t.Errorf("%d bytes came in of %d", got, want)
	}
	c.checkWhole(t, b)
	b.Close()
	cache.Close()

	// The index is there, the data is not.
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	before := c.registry.sent.Load()
	cache = openCache(t, dir, Options{StrictSize: -1, NoBackground: true})
	b = openBlob(t, cache, client, c.image)
	if _, err := b.ReadAt(head, 0); err != nil || !bytes.Equal(head, c.file[:4096]) {
		t.Fatalf("the head: %v (or other bytes)", err)
	}
	at := int64(bytes.Index(c.file, tar[6<<20:6<<20+100]))
	if _, err := b.ReadAt(head, at); err != nil || !bytes.Equal(head, c.file[at:at+4096]) {
		t.Fatalf("one page: %v (or other bytes)", err)
	}
	if got := c.registry.sentInAll(t) - before; got > 4<<20 {
		t.Errorf("%d bytes came in for two pages", got)
	}
	c.check(t, b, 50)
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c.checkWhole(t, b)
}

// A pass that is broken off goes on where it was.
func TestLayered_interrupted(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 10<<20)), zstandard(t, randomTar(t, 2, 1<<20)), plain(randomTar(t, 3, 6<<20)))
	dir, client := t.TempDir(), c.client(t)
	c.registry.set(faults{rate: 512 << 10})
	i := 0
	for ; ; i++ {
		cache := openCache(t, dir, Options{})
		b := openBlob(t, cache, client, c.image)
		ctx, cancel := context.WithCancel(t.Context())
		var last int64
		err := b.Wait(ctx, func(have int64) {
			if last == 0 {
				last = max(have, 1)
			}
			if have-last > 4<<20 {
				cancel()
			}
		})
		cancel()
		if err == nil {
			c.checkWhole(t, b)
			if i < 2 {
				t.Errorf("it was broken off %d times", i)
			}
			break
		}
		b.Close()
		cache.Close()
	}
	// Of each layer what lies between two points, and of that which has none all of it.
	if got, want := c.registry.sentInAll(t), c.compressed(); got > want+int64(i)*(12<<20) {
		t.Errorf("%d bytes came in of %d, broken off %d times", got, want, i)
	} else {
		t.Logf("%d bytes came in of %d, broken off %d times", got, want, i)
	}
}

// What no file can be made of is refused with the reason, which the backend is told, whatever
// of it came in.
func TestLayered_unfit(t *testing.T) {
	good := gzipped(t, randomTar(t, 1, 1<<20))
	cases := map[string]testLayer{
		"longer than it says": {tar: good.tar, blob: good.blob, media: good.media, bound: int64(len(good.tar)) - 512},
		"shorter than said":   {tar: good.tar, blob: good.blob, media: good.media, bound: int64(len(good.tar)) + 512},
		"cut off":             {tar: good.tar, blob: good.blob[:len(good.blob)-100], media: good.media},
		"something behind":    {tar: good.tar, blob: append(bytes.Clone(good.blob), "garbage"...), media: good.media},
		"another tar":         {tar: plain(randomTar(t, 2, 1<<20)).tar, blob: good.blob, media: good.media, bound: 2 << 20},
		"no gzip":             {tar: good.tar, blob: good.tar, media: good.media},
		"no zstd":             {tar: good.tar, blob: good.tar, media: ocispec.MediaTypeImageLayerZstd},
	}
	for name, bad := range cases {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, good, bad)
			cache := openCache(t, t.TempDir(), Options{})
			b := openBlob(t, cache, c.client(t), c.image)
			_, err := b.ReadAt(make([]byte, 100), 0)
			if !errors.Is(err, vsif.ErrLayer) || !errors.Is(err, syscall.EFBIG) {
				t.Errorf("reading: %v", err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.unfit == nil {
				t.Error("the backend was not told")
			}
		})
	}
}

// A registry that sends other bytes than it names is found out, whichever they are; the image
// is not blamed for it.
func TestLayered_corrupt(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 3<<20)), plain(randomTar(t, 2, 1<<20)), zstandard(t, randomTar(t, 3, 1<<20)))
	for i, blob := range c.parts.Blobs {
		for _, at := range []int64{100, blob.Size / 2, blob.Size - 3} {
			t.Run(fmt.Sprintf("layer %d, byte %d", i, at), func(t *testing.T) {
				var times atomic.Int64
				c.registry.set(faults{mangle: func(name string, off int64, b []byte) {
					if name == blob.Ref.Name && off <= at && at < off+int64(len(b)) {
						b[at-off] ^= 1
						times.Add(1)
					}
				}})
				cache := openCache(t, t.TempDir(), Options{})
				b := openBlob(t, cache, c.client(t), c.image)
				if _, err := b.ReadAt(make([]byte, 100), 0); !errors.Is(err, backends.ErrCorrupt) {
					t.Errorf("reading: %v", err)
				}
				c.registry.set(faults{})
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.unfit != nil {
					t.Errorf("the image was blamed: %v", c.unfit)
				}
			})
		}
	}
}

// What another image has is not fetched again.
func TestLayered_shared(t *testing.T) {
	base := gzipped(t, randomTar(t, 1, 6<<20))
	one, two := newContainer(t, base), newContainer(t, gzipped(t, randomTar(t, 2, 1<<20)), base)
	cache := openCache(t, t.TempDir(), Options{})
	mustWait(t, openBlob(t, cache, one.client(t), one.image))
	b := openBlob(t, cache, two.client(t), two.image)
	mustWait(t, b)
	two.checkWhole(t, b)
	if got, want := two.registry.sentInAll(t), two.parts.Blobs[0].Size; got > want {
		t.Errorf("%d bytes came in, and only %d were not here", got, want)
	}
}

// Who only opens the file makes no layer come in, and what comes in for a reader ends with
// him.
func TestLayered_abandoned(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 8<<20)), plain(randomTar(t, 2, 16<<20)))
	c.registry.set(faults{rate: 1 << 20})
	cache := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, cache, c.client(t), c.image)
	if err := b.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.registry.sentInAll(t); got > 0 {
		t.Errorf("%d bytes came in for who opened it", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.ReadAtContext(ctx, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("reading: %v", err)
	}
	b.Close()
	if got := c.registry.sentInAll(t); got > c.compressed()/2 {
		t.Errorf("%d bytes of %d came in for nobody", got, c.compressed())
	}
	b = openBlob(t, cache, c.client(t), c.image)
	c.registry.set(faults{})
	mustWait(t, b)
	c.checkWhole(t, b)
}

// A registry that is away for a while makes readers wait.
func TestLayered_away(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 5<<20)), gzipped(t, randomTar(t, 2, 1<<20)))
	c.registry.set(faults{rate: 8 << 20})
	cache := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, cache, c.client(t), c.image)
	var gone, back atomic.Bool
	c.registry.set(faults{rate: 8 << 20, mangle: func(string, int64, []byte) {
		if c.registry.sent.Load() > c.compressed()/2 && !gone.Swap(true) {
			go func() {
				c.registry.set(faults{status: http.StatusServiceUnavailable})
				c.registry.CloseClientConnections()
				time.Sleep(time.Second)
				back.Store(true)
				c.registry.set(faults{})
			}()
		}
	}})
	c.check(t, b, 20)
	if !back.Load() {
		t.Error("it was never away")
	}
}

// A whole file that nothing is known of is made again in the head and compared: no byte of
// it can be another one.
func TestLayered_verify(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 2<<20)), plain(randomTar(t, 2, 1000)))
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, c.file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := layout(t.TempDir()).hashFile(t.Context(), f, c.image.Digest); err != nil {
		t.Fatalf("the right file: %v", err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		off := r.Int64N(c.image.Size)
		if r.IntN(2) == 0 {
			off %= 64 << 10
		}
		flip := func(b byte) {
			t.Helper()
			if _, err := f.WriteAt([]byte{b}, off); err != nil {
				t.Fatal(err)
			}
		}
		flip(c.file[off] ^ 1)
		if err := layout(t.TempDir()).hashFile(t.Context(), f, c.image.Digest); !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("another byte at %d: %v", off, err)
		}
		flip(c.file[off])
	}
}

// Whatever becomes of the index of a layer, the bytes are right.
func TestLayered_damagedIndex(t *testing.T) {
	c := newContainer(t, gzipped(t, randomTar(t, 1, 6<<20)), plain(randomTar(t, 2, 1<<20)))
	dir, client := t.TempDir(), c.client(t)
	cache := openCache(t, dir, Options{})
	mustWait(t, openBlob(t, cache, client, c.image))
	cache.Close()
	files, err := filepath.Glob(filepath.Join(dir, "layers", "sha256", "*", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("indexes %q, %v", files, err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 6 {
		if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		path := files[i%2]
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			text = text[:r.IntN(len(text))]
		} else {
			text[r.IntN(len(text))] ^= 1
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cache := openCache(t, dir, Options{})
		b := openBlob(t, cache, client, c.image)
		c.check(t, b, 3)
		mustWait(t, b)
		c.checkWhole(t, b)
		cache.Close()
	}
}

// Sparse files are read as they were before tar left out their holes, in each of its formats.
func TestLayered_sparse(t *testing.T) {
	dir := t.TempDir()
	want := map[string][]byte{}
	make := func(name string, size int64, data map[int64]string) {
		t.Helper()
		b := make([]byte, size)
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = f.Truncate(size)
		}
		for off, text := range data {
			copy(b[off:], text)
			if err == nil {
				_, err = f.WriteAt([]byte(text), off)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		want[name] = b
	}
	long := strings.Repeat("0123456789abcdef", 9000)
	make("begins", 3<<20, map[int64]string{0: "begin", 1 << 20: long})
	make("ends", 2<<20+77, map[int64]string{2<<20 + 70: "the end"})
	make("empty", 1<<20, nil)
	make("many", 8<<20, map[int64]string{1 << 20: "a", 2 << 20: "b", 3 << 20: "c", 4 << 20: "d", 5 << 20: "e", 6 << 20: "f", 7 << 20: long})
	make("dense", 70_000, map[int64]string{0: long[:70_000]})
	for _, format := range []string{"--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			words := append(strings.Fields(format), "-S", "-C", dir, "-cf", "-", "begins", "ends", "empty", "many", "dense")
			data, err := exec.Command("tar", words...).Output()
			if err != nil {
				t.Fatal(err)
			}
			c := newContainer(t, gzipped(t, data), plain(randomTar(t, 2, 10_000)))
			b := openBlob(t, openCache(t, t.TempDir(), Options{}), c.client(t), c.image)
			file, root := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "root")
			whole, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			if err == nil {
				err = os.WriteFile(file, whole, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			at := fmt.Sprint(bytes.Index(whole, []byte("hsqs")))
			if out, err := exec.Command("unsquashfs", "-q", "-n", "-o", at, "-d", root, file).CombinedOutput(); err != nil {
				t.Fatalf("unsquashfs: %v: %s", err, out)
			}
			for name, want := range want {
				if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
				}
			}
			mustWait(t, b)
			f, _ := b.File()
			if err := layout(t.TempDir()).hashFile(t.Context(), f, c.image.Digest); err != nil {
				t.Errorf("verified again: %v", err)
			}
		})
	}
}

// eStargz returns a layer with a table of contents, and what is in it.
func eStargz(t testing.TB, tar []byte, opts ...estargz.Option) testLayer {
	t.Helper()
	made, err := estargz.Build(io.NewSectionReader(bytes.NewReader(tar), 0, int64(len(tar))), opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	blob, err := io.ReadAll(made)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return testLayer{tar: whole, blob: blob, media: ocispec.MediaTypeImageLayerGzip, notes: map[string]string{
		estargz.TOCJSONDigestAnnotation: made.TOCDigest().String(), estargz.StoreUncompressedSizeAnnotation: fmt.Sprint(len(whole))}}
}

// A layer with a table of contents starts without a pass: nothing but the table comes in for
// the head and the tables, and of the files what is read.
func TestLayered_eStargz(t *testing.T) {
	data := randomTar(t, 1, 6<<20)
	for name, opts := range map[string][]estargz.Option{"default": nil, "small pieces": {estargz.WithChunkSize(100_000)}, "several in one": {estargz.WithMinChunkSize(200_000), estargz.WithChunkSize(50_000)}} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, eStargz(t, data, opts...), gzipped(t, randomTar(t, 2, 100_000)))
			dir, client := t.TempDir(), c.client(t)
			cache := openCache(t, dir, Options{NoBackground: true})
			b := openBlob(t, cache, client, c.image)
			head := make([]byte, 128<<10)
			for _, off := range []int64{0, b.Size() - (1 << 20)} {
				if _, err := b.ReadAt(head, off); err != nil {
					t.Fatalf("at %d: %v", off, err)
				}
			}
			if got := c.registry.sentInAll(t); got > 1<<20 {
				t.Errorf("%d bytes came in for the head", got)
			}
			whole, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			if err != nil {
				t.Fatal(err)
			}
			checkTree(t, whole, data)
			mustWait(t, b)
			f, ok := b.File()
			if !ok {
				t.Fatal("it is not whole")
			}
			if err := layout(dir).hashFile(t.Context(), f, c.image.Digest); err != nil {
				t.Errorf("verified again: %v", err)
			}
		})
	}
}

// A zstd:chunked layer, as buildah 1.28 has pushed it, starts without a pass, too.
func TestLayered_zstdChunked(t *testing.T) {
	blob, err := os.ReadFile("testdata/zstd-chunked.blob")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, testLayer{tar: data, blob: blob, media: ocispec.MediaTypeImageLayerZstd, bound: 8*int64(len(blob)) + 16<<20, notes: map[string]string{
		"io.containers.zstd-chunked.manifest-checksum": "sha256:2eb02c973487ac0b92f00a00b221279549afddefc3a4eccb634eeba7c8bd5075",
		"io.containers.zstd-chunked.manifest-position": "79309:542:1992:1",
	}})
	dir := t.TempDir()
	b := openBlob(t, openCache(t, dir, Options{NoBackground: true}), c.client(t), c.image)
	if _, err := b.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if got := c.registry.sentInAll(t); got > 10_000 {
		t.Errorf("%d bytes came in for the head", got)
	}
	whole, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, whole, data)
	mustWait(t, b)
	f, _ := b.File()
	if err := layout(dir).hashFile(t.Context(), f, c.image.Digest); err != nil {
		t.Errorf("verified again: %v", err)
	}
}

// checkTree unpacks the file system of a file, and compares the regular files with those of a tar.
func checkTree(t *testing.T, whole, data []byte) {
	t.Helper()
	file, root := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprint(bytes.Index(whole, []byte("hsqs")))
	if out, err := exec.Command("unsquashfs", "-q", "-n", "-o", at, "-d", root, file).CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v: %s", err, out)
	}
	for r, files := tar.NewReader(bytes.NewReader(data)), 0; ; files++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) && files > 5 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		want, _ := io.ReadAll(r)
		if got, err := os.ReadFile(filepath.Join(root, h.Name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", h.Name, len(got), len(want), err)
		}
	}
}
