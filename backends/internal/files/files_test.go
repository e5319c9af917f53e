// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A disk is a store of real files, whose versions are digests.
type disk struct {
	root string
	mu   sync.Mutex // guards what is compared before it is changed
}

func (d *disk) file(path string) string { return filepath.Join(d.root, filepath.FromSlash(path)) }

func (d *disk) Stat(_ context.Context, path string) (File, error) {
	text, err := os.ReadFile(d.file(path))
	if err != nil || strings.HasSuffix(path, "/") {
		return File{}, backends.NotFound("no such file: %v", err)
	}
	info, err := os.Stat(d.file(path))
	if err != nil {
		return File{}, err
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(text))
	return File{Path: path, Size: info.Size(), Version: sum, Digest: sum, Modified: info.ModTime()}, nil
}

func (d *disk) Open(ctx context.Context, f File, off, n int64) (io.ReadCloser, error) {
	now, err := d.Stat(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	if now.Version != f.Version {
		return nil, backends.ErrChanged
	}
	file, err := os.Open(d.file(f.Path))
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, off, n), file}, nil
}

func (d *disk) List(ctx context.Context, folder, prefix string) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		all, err := os.ReadDir(d.file(folder))
		if err != nil {
			yield(File{}, backends.NotFound("no such folder"))
			return
		}
		for _, e := range all {
			f := File{Path: Join(folder, e.Name()), Folder: true}
			if !e.IsDir() {
				f, err = d.Stat(ctx, f.Path)
			}
			if strings.HasPrefix(e.Name(), prefix) && !yield(f, err) {
				return
			}
		}
	}
}

// check compares what is there with what is to be replaced.
func (d *disk) check(ctx context.Context, path, old string) error {
	now, err := d.Stat(ctx, path)
	switch {
	case old == backends.ReplaceAny, old == "" && errors.Is(err, fs.ErrNotExist):
		return nil
	case old == "":
		return fs.ErrExist
	case now.Version != old:
		return backends.ErrChanged
	}
	return err
}

func (d *disk) Put(ctx context.Context, path string, src backends.Source, old string) (File, error) {
	text := make([]byte, src.Size)
	if n, err := src.Content.ReadAt(text, 0); n < len(text) {
		return File{}, err
	}
	if fmt.Sprintf("sha256:%x", sha256.Sum256(text)) != src.Digest {
		return File{}, backends.ErrCorrupt
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx, path, old); err != nil {
		return File{}, err
	}
	if err := src.MayCommit(); err != nil {
		return File{}, err
	}
	err := errors.Join(os.MkdirAll(filepath.Dir(d.file(path)), 0o700), os.WriteFile(d.file(path), text, 0o600))
	if !src.Modified.IsZero() {
		err = errors.Join(err, os.Chtimes(d.file(path), src.Modified, src.Modified))
	}
	if err != nil {
		return File{}, err
	}
	return d.Stat(ctx, path)
}

func (d *disk) Remove(ctx context.Context, f File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx, f.Path, f.Version); err != nil {
		return err
	}
	return os.Remove(d.file(f.Path))
}

func (d *disk) Duplicate(ctx context.Context, f File, path, old string, commit func() error) (File, error) {
	file, err := os.Open(d.file(f.Path))
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	return d.Put(ctx, path, backends.Source{Content: file, Size: f.Size, Digest: f.Digest, Modified: f.Modified, Commit: commit}, old)
}

type client struct {
	*Reader
	*Pusher
	*Copier
	*Mover
}

func open(t *testing.T, seed backendtest.Seed) client {
	d := &disk{root: t.TempDir()}
	r := NewReader(d, Layout{})
	for _, img := range seed.Images {
		if r.CheckName(img.Ref) != nil {
			continue
		}
		path := d.file(r.Path(img.Ref, img.Format))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, img.Content, 0o600), os.Chtimes(path, img.Modified, img.Modified)); err != nil {
			t.Fatal(err)
		}
	}
	p := NewPusher(r, d)
	return client{r, p, NewCopier(p, d), NewMover(p, d)}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps:  backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanCopy | backends.CanTag,
		Local: true, KeepsTime: true, KeepsFormat: true,
		Open: func(t *testing.T, seed backendtest.Seed, _ *http.Client) backends.Backend { return open(t, seed) },
	})
}

// Other programs give names in other ways.
func TestReader_names(t *testing.T) {
	t.Parallel()
	c := open(t, backendtest.Seed{})
	d := c.store.(*disk)
	for i, path := range []string{
		"c/hello:1.sif", "c/hello:1.simg", "c/hello:2@0f.sif", "c/hello:2@ff.sif", "c/old-1.simg", "c/tool.sif", "c/readme.txt", "c/.sregfs-1.sif",
		"100%/a:b/x:1.sif", "top.sif",
	} {
		text := strings.Repeat("x", i+1)
		at := time.Unix(1_000_000+int64(i), 0)
		if err := errors.Join(os.MkdirAll(filepath.Dir(d.file(path)), 0o700), os.WriteFile(d.file(path), []byte(text), 0o600), os.Chtimes(d.file(path), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int64{}
	for e, err := range c.Reader.List(t.Context(), "c") {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Image.Ref.String()] = e.Image.Size
	}
	want := map[string]int64{"c/hello:1": 1, "c/hello:2": 4, "c/old-1:latest": 5, "c/tool:latest": 6}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		ref  backends.Ref
		size int64
	}{
		{backends.Ref{Collection: "c", Name: "hello", Tag: "1"}, 1},
		{backends.Ref{Collection: "c", Name: "hello", Tag: "2"}, 4},
		{backends.Ref{Collection: "c", Name: "hello", Tag: "2", Version: "0f"}, 3},
		{backends.Ref{Collection: "c", Name: "old", Tag: "1"}, 5},
		{backends.Ref{Collection: "c", Name: "tool", Tag: "latest"}, 6},
		{backends.Ref{Collection: "100%/a:b", Name: "x", Tag: "1"}, 9},
		{backends.Ref{Name: "top", Tag: "latest"}, 10},
	} {
		img, err := c.Reader.Stat(t.Context(), test.ref)
		if err != nil || img.Size != test.size {
			t.Errorf("Stat(%s) = %d bytes, %v, want %d", test.ref, img.Size, err, test.size)
			continue
		}
		body, err := c.Reader.Open(t.Context(), img, 0, -1)
		if err != nil {
			t.Errorf("Open(%s): %v", test.ref, err)
			continue
		}
		text, err := io.ReadAll(body)
		body.Close()
		if int64(len(text)) != test.size || err != nil {
			t.Errorf("Open(%s): %d bytes, %v, want %d", test.ref, len(text), err, test.size)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	var l Layout
	for name, want := range map[string]Parsed{
		"hello:2.0.sif":            {Name: "hello", Tag: "2.0", Format: "sif"},
		"hello:2.0@abc.sif":        {Name: "hello", Tag: "2.0", Version: "abc", Format: "sif"},
		"hello:2.0@sha256:abc.sif": {Name: "hello", Tag: "2.0", Version: "sha256:abc", Format: "sif"},
		"hello:2.0.simg":           {Name: "hello", Tag: "2.0", Format: "simg"},
		"hello:2.0.img":            {Name: "hello", Tag: "2.0", Format: "img"},
		"hello-world-2.0.simg":     {Name: "hello-world-2.0", Tag: "latest", Format: "simg", Flat: true},
		"hello-2.0@0f.sif":         {Name: "hello-2.0", Tag: "latest", Version: "0f", Format: "sif", Flat: true},
		"samtools.sif":             {Name: "samtools", Tag: "latest", Format: "sif", Flat: true},
		"a%3Ab:c%2Fd.sif":          {Name: "a:b", Tag: "c/d", Format: "sif"},
		"100%:1.sif":               {Name: "100%", Tag: "1", Format: "sif"},
		"a%2fb:1.sif":              {Name: "a%2fb", Tag: "1", Format: "sif"}, // not how we escape
		"hello+1.oci.tar":          {Name: "hello", Tag: "1", Format: "oci.tar"},
		"hello:.sif":               {Name: "hello:", Tag: "latest", Format: "sif", Flat: true},
	} {
		got, ok := l.Parse(name)
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("Parse(%q) = %v, (-want +got):\n%s", name, ok, diff)
		}
	}
	for _, name := range []string{"", ".sif", ".hidden.sif", "readme.txt", "hello:2.0", "hello:2.0.sif.part", "@1.sif"} {
		if p, ok := l.Parse(name); ok {
			t.Errorf("Parse(%q) = %+v, want nothing", name, p)
		}
	}
}

// Whatever the parts of a name are: its path tells the name again.
func FuzzPath(f *testing.F) {
	for _, parts := range [][3]string{{"vsoch", "hello", "2.0"}, {"a/b", "c:d", "e@f"}, {"100%", "%41", "+"}, {"", ".a", "a.sif"}} {
		f.Add(parts[0], parts[1], parts[2])
	}
	f.Fuzz(func(t *testing.T, collection, name, tag string) {
		ref := backends.Ref{Collection: collection, Name: name, Tag: tag}
		l := Layout{Escape: func(part string) string { return strings.ReplaceAll(part, `\`, "%5C") }}
		if ref.Check() != nil || tag == "" {
			return
		}
		for _, format := range backends.Formats() {
			got, ok := l.Ref(l.Path(ref, format))
			if !ok || got != ref {
				t.Errorf("%+v became %q, which tells %+v, %v", ref, l.Path(ref, format), got, ok)
			}
		}
	})
}
