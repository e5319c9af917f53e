// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	svc, other := newService(), newService()
	for _, name := range []string{"vsoch/a:1", "vsoch/a:2", "vsoch/deep/b:1", "vsochs/c:1", "bio/d:1"} {
		svc.put(name, []byte(name))
	}
	other.put("vsoch/x:1", []byte("x"))
	b := newBench(t, svc, func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{Name: "two", URL: "http://two.example.org:5000", Client: other.client("two")})
	})
	if _, err := backends.Collect(b.Choose(t.Context(), "vsoch/*")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pattern without a remote, before anything was listed: %v", err)
	}
	if n := svc.count("list"); n != 0 {
		t.Errorf("%d listings were made for it", n)
	}
	for _, c := range []struct {
		pattern string
		want    []string
		err     error
	}{
		{"lab://vsoch/", []string{"lab://vsoch/a:1", "lab://vsoch/a:2", "lab://vsoch/deep/b:1"}, nil},
		{"lab://vsoch/a:*", []string{"lab://vsoch/a:1", "lab://vsoch/a:2"}, nil},
		{"lab://*/?:1", []string{"lab://bio/d:1", "lab://vsoch/a:1", "lab://vsoch/deep/b:1", "lab://vsochs/c:1"}, nil},
		{"two.example.org:5000/vsoch/", []string{"two://vsoch/x:1"}, nil},
		{"two://", []string{"two://vsoch/x:1"}, nil},
		{"vsoch/", []string{"lab://vsoch/a:1", "lab://vsoch/a:2", "lab://vsoch/deep/b:1", "two://vsoch/x:1"}, nil},
		{"lab://vsoch/a:2", []string{"lab://vsoch/a:2"}, nil},
		{"vsoch/a:1", []string{"lab://vsoch/a:1"}, nil},
		{"lab://none/", nil, fs.ErrNotExist},
		{"lab://vsoch/a:3", nil, fs.ErrNotExist},
		{"nolab://vsoch/", nil, fs.ErrNotExist},
		{"no.example.org/vsoch/", nil, fs.ErrNotExist},
		{"lab://[x", nil, fs.ErrInvalid},
		{"lab://a/b:c:d", nil, fs.ErrInvalid},
		{"/", nil, fs.ErrInvalid},
		{"", nil, fs.ErrInvalid},
	} {
		got, err := uris(t, b.Choose(t.Context(), c.pattern))
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, c.err) {
			t.Errorf("Choose(%q) = %v, %v:\n%s", c.pattern, got, err, diff)
		}
	}
}

// A pattern within a collection does not list the rest of the registry, and what is
// known is given out though the registry is down.
func TestChoose_asksForWhatItNeeds(t *testing.T) {
	t.Parallel()
	svc := newService()
	for _, name := range []string{"vsoch/a:1", "bio/one/b:1", "bio/two/c:1", "bio/three/d:1"} {
		svc.put(name, []byte(name))
	}
	b := newBench(t, svc)
	if got, err := uris(t, b.Choose(t.Context(), "lab://vsoch/a*")); err != nil || len(got) != 1 {
		t.Errorf("Choose = %v, %v", got, err)
	}
	if n := svc.count("list"); n != 1 {
		t.Errorf("%d listings for one collection", n)
	}
	b.Expire()
	svc.set(func() { svc.down = true })
	got, err := uris(t, b.Choose(t.Context(), "lab://vsoch/"))
	if !errors.Is(err, backends.ErrUnavailable) || len(got) != 1 {
		t.Errorf("Choose of a registry that is down = %v, %v", got, err)
	}
}

func warm(t *testing.T, b *bench, uri string, o verbs.WarmOptions) verbs.Warmed {
	t.Helper()
	w, err := b.Warm(t.Context(), uri, o, nil)
	if err != nil {
		t.Fatalf("Warm(%s): %v", uri, err)
	}
	return w
}

func TestWarm(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("a/b:1", []byte("content"))
	b := newBench(t, svc)
	w := warm(t, b, "lab://a/b:1", verbs.WarmOptions{Pin: true})
	if w.Here || w.Image.State != cache.Cached || !w.Image.Pinned {
		t.Errorf("first: %+v", w)
	}
	if got, err := os.ReadFile(w.Image.Path); err != nil || string(got) != "content" {
		t.Errorf("%s holds %q, %v", w.Image.Path, got, err)
	}
	if w := warm(t, b, "lab://a/b:1", verbs.WarmOptions{}); !w.Here {
		t.Errorf("second: %+v", w)
	}
	if n := svc.count("open"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if _, err := b.Warm(t.Context(), "lab://a/none:1", verbs.WarmOptions{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

// What is at hand already is copied, and pinning it is nothing.
func TestWarm_local(t *testing.T) {
	t.Parallel()
	_, local := withLocal(t)
	b := newBench(t, newService(), local)
	content, err := os.ReadFile("inspect/testdata/small-plain.simg")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(t.Context(), file(t, content), "local://a/b:1", verbs.AddOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "deep/er/copy")
	if w := warm(t, b, "local://a/b:1", verbs.WarmOptions{Pin: true}); !w.Here {
		t.Errorf("a local file was fetched: %+v", w)
	}
	if w := warm(t, b, "local://a/b:1", verbs.WarmOptions{To: to}); w.Here || w.Image.Path != to {
		t.Errorf("copy: %+v", w)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy holds %d bytes, %v", len(got), err)
	}
}

func TestWarm_copy(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("a/b:1", []byte("content"))
	b := newBench(t, svc)
	to := filepath.Join(t.TempDir(), "tree", "copy")
	o := verbs.WarmOptions{To: to}
	holds := func(what, want string) {
		t.Helper()
		if got, err := os.ReadFile(to); err != nil || string(got) != want {
			t.Errorf("%s: the copy holds %q, %v, want %q", what, got, err, want)
		}
	}
	if w := warm(t, b, "lab://a/b:1", o); w.Here || w.Image.Path != to {
		t.Errorf("first: %+v", w)
	}
	holds("first", "content")
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o755 || info.ModTime().Unix() != 1_700_000_001 {
		t.Errorf("the copy is %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(to)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its directory is %v, %v", info, err)
	}

	// Here means: without the cache, and without asking for the bytes.
	w := warm(t, b, "lab://a/b:1", o)
	if _, err := b.RemoveCached(t.Context(), cache.KeyOf("lab", backends.Image{Digest: digest([]byte("content"))})); err != nil {
		t.Fatal(err)
	}
	if !w.Here || !warm(t, b, "lab://a/b:1", o).Here || svc.count("open") != 1 {
		t.Errorf("a copy that is there is made again")
	}

	// A moved tag replaces the copy of what it was.
	svc.put("a/b:1", []byte("another"))
	b.Expire()
	if warm(t, b, "lab://a/b:1", o).Here {
		t.Errorf("the copy of what the tag was is taken for what it is")
	}
	holds("moved", "another")

	// A file that was written to is no copy of ours, unless it has the right bytes.
	if err := os.WriteFile(to, []byte("my work"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Warm(t.Context(), "lab://a/b:1", o, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file of somebody else: %v", err)
	}
	holds("kept", "my work")
	if err := os.WriteFile(to, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !warm(t, b, "lab://a/b:1", o).Here {
		t.Errorf("a file with the right bytes is not taken")
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", to); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Warm(t.Context(), "lab://a/b:1", o, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a link: %v", err)
	}
	o.Force = true
	warm(t, b, "lab://a/b:1", o)
	holds("forced", "another")
	if names, err := filepath.Glob(filepath.Join(filepath.Dir(to), ".*")); err != nil || len(names) > 0 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

// A copy that was damaged without a trace is found by reading it.
func TestWarm_verify(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs extended attributes")
	}
	svc := newService()
	svc.put("a/b:1", []byte("content"))
	b := newBench(t, svc)
	o := verbs.WarmOptions{To: filepath.Join(t.TempDir(), "copy")}
	warm(t, b, "lab://a/b:1", o)
	info, err := os.Stat(o.To)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.To, []byte("cXntent"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(o.To, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if !warm(t, b, "lab://a/b:1", o).Here {
		t.Errorf("it was read without being told to")
	}
	o.Verify = true
	if warm(t, b, "lab://a/b:1", o).Here {
		t.Errorf("the damage was not found")
	}
	if got, err := os.ReadFile(o.To); err != nil || string(got) != "content" {
		t.Errorf("the copy holds %q, %v", got, err)
	}
}
