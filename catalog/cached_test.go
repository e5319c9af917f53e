// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// cacheBench has three images in the cache, one of them under two names, and one
// that is pinned and not here.
func cacheBench(t *testing.T) (*service, *bench) {
	t.Helper()
	svc := newService()
	for name, content := range map[string]string{"a/one:1": "one", "a/two:1": "two", "b/two:2": "two", "b/three:1": "three", "b/four:1": "four"} {
		svc.put(name, []byte(content))
	}
	b := newBench(t, svc)
	if n := drainAll(t, b); n != 5 {
		t.Fatalf("%d images", n)
	}
	for _, uri := range []string{"lab://a/one:1", "lab://b/two:2", "lab://b/three:1"} {
		warm(t, b, uri, verbs.WarmOptions{})
	}
	if _, err := b.Pin(t.Context(), "lab://b/four:1"); err != nil {
		t.Fatal(err)
	}
	return svc, b
}

func drainAll(t *testing.T, b *bench) (n int) {
	t.Helper()
	for _, err := range b.Images(t.Context(), verbs.ImagesOptions{Refresh: true}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// names returns what Cached yields, by names and states.
func names(t *testing.T, b *bench, patterns ...string) (map[string]cache.State, error) {
	t.Helper()
	got := map[string]cache.State{}
	var failed error
	for c, err := range b.Cached(t.Context(), patterns) {
		if err != nil {
			failed = err
			break
		}
		name := strings.Join(c.URIs, " ")
		if name == "" {
			name = string(c.Key)
		}
		got[name] = c.State
	}
	return got, failed
}

func TestCached(t *testing.T) {
	t.Parallel()
	_, b := cacheBench(t)
	const two = "lab://a/two:1 lab://b/two:2"
	one := map[string]cache.State{"lab://a/one:1": cache.Cached}
	key := digest([]byte("one"))
	for _, c := range []struct {
		patterns []string
		want     map[string]cache.State
		err      error
	}{
		{nil, map[string]cache.State{"lab://a/one:1": cache.Cached, two: cache.Cached, "lab://b/three:1": cache.Cached, "lab://b/four:1": cache.Remote}, nil},
		{[]string{"lab://a/one:1"}, one, nil},
		{[]string{"a/one:1"}, one, nil},
		{[]string{"lab.example.org/a/one:1"}, one, nil},
		{[]string{key}, one, nil},
		{[]string{key[:20]}, one, nil},
		{[]string{"lab://a/"}, map[string]cache.State{"lab://a/one:1": cache.Cached, two: cache.Cached}, nil},
		{[]string{"*two*"}, map[string]cache.State{two: cache.Cached}, nil},
		{[]string{"lab://a/one:1", "lab://a/none:1"}, one, fs.ErrNotExist},
		{[]string{"lab://b/four:1"}, map[string]cache.State{"lab://b/four:1": cache.Remote}, nil},
		{[]string{"sha256:000000000000"}, map[string]cache.State{}, fs.ErrNotExist},
		{[]string{"a/b:c:d"}, map[string]cache.State{}, fs.ErrInvalid},
	} {
		got, err := names(t, b, c.patterns...)
		if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, c.err) {
			t.Errorf("Cached(%q): %v\n%s", c.patterns, err, diff)
		}
	}
}

// A blob whose tag moved has no name; a pinned one keeps that by which it was
// pinned.
func TestCached_movedTag(t *testing.T) {
	t.Parallel()
	svc, b := cacheBench(t)
	if _, err := b.Pin(t.Context(), "lab://b/three:1"); err != nil {
		t.Fatal(err)
	}
	svc.put("a/one:1", []byte("moved"))
	svc.put("b/three:1", []byte("moved too"))
	b.Expire()
	drainAll(t, b)
	got, err := names(t, b)
	want := map[string]cache.State{
		digest([]byte("one")): cache.Cached, "lab://a/two:1 lab://b/two:2": cache.Cached,
		"lab://b/three:1": cache.Cached, "lab://b/four:1": cache.Remote,
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestRemoveCached(t *testing.T) {
	t.Parallel()
	_, b := cacheBench(t)
	one, three := cache.Key(digest([]byte("one"))), cache.Key(digest([]byte("three")))
	img, err := b.Lookup(t.Context(), "lab", backends.Ref{Collection: "a", Name: "one", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	open, err := b.Blob(t.Context(), "lab", img)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.RemoveCached(t.Context(), one); !errors.Is(err, cache.ErrInUse) {
		t.Errorf("of an open blob: %v", err)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	if freed, err := b.RemoveCached(t.Context(), one); err != nil || freed <= 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if freed, err := b.RemoveCached(t.Context(), one); err != nil || freed != 0 {
		t.Errorf("freed %d of what is not here, %v", freed, err)
	}
	if _, err := b.Pin(t.Context(), "lab://b/three:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RemoveCached(t.Context(), three); !errors.Is(err, cache.ErrInUse) {
		t.Errorf("of a pinned blob: %v", err)
	}
}

func TestVerifyCached(t *testing.T) {
	t.Parallel()
	_, b := cacheBench(t)
	key := cache.Key(digest([]byte("three")))
	if err := b.VerifyCached(t.Context(), key, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := b.Get(t.Context(), "lab://b/three:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(rec.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rec.Path, []byte("thXee"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.VerifyCached(t.Context(), key, nil); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("of a damaged blob: %v", err)
	}
	if err := b.VerifyCached(t.Context(), key, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("of one that is not here: %v", err)
	}
}

func TestCacheUse(t *testing.T) {
	t.Parallel()
	svc, b := cacheBench(t)
	svc.put("a/one:1", []byte("moved"))
	b.Expire()
	drainAll(t, b)
	use, err := b.CacheUse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if use.Cached.Blobs != 3 || use.Partial.Blobs != 0 || use.Pinned.Blobs != 1 || use.Used != use.Cached.Bytes || use.Used == 0 {
		t.Errorf("%+v", use)
	}
	got := map[string]int{}
	for _, r := range use.Remotes {
		got[strings.Join(r.Remotes, " ")] = r.Blobs
	}
	if diff := cmp.Diff(map[string]int{"lab": 2, "": 1}, got); diff != "" {
		t.Error(diff)
	}
	st, err := b.Status(t.Context())
	if err != nil || st.Cache.Whole != 3 || st.Cache.Pinned != 1 || st.Cache.Blobs != 3 {
		t.Errorf("status: %+v, %v", st.Cache, err)
	}
}
