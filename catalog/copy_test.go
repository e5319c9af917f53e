// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// twoServices is a bench with a second remote, called other.
func twoServices(t *testing.T) (b *bench, svc, other *service) {
	t.Helper()
	svc, other = newService(), newService()
	b = newBench(t, svc, func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{Name: "other", Type: "test", Client: other.client("other")})
	})
	return b, svc, other
}

// holds returns the content of an image of a service, nil if it has none.
func (s *service) holds(ref string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := backends.ParseRef(ref)
	return s.images[r].Content
}

func TestCopy(t *testing.T) {
	t.Parallel()
	b, svc, other := twoServices(t)
	content := bytes.Repeat([]byte("image "), 1<<19)
	img := svc.put("a/b:1", content)
	copyTo := func(to string, o verbs.CopyOptions) (verbs.Copied, error) {
		return b.Verbs.Copy(t.Context(), "lab://a/b:1", to, o, nil)
	}
	got, err := copyTo("other://c/", verbs.CopyOptions{})
	if err != nil || got.Image.URI != "other://c/b:1" || got.Here || !bytes.Equal(other.holds("c/b:1"), content) {
		t.Fatalf("Copy = %+v, %v", got, err)
	}
	if n, state := svc.count("open"), b.BlobInfo("lab", img).State; n != 1 || state != cache.Remote {
		t.Errorf("%d requests for the bytes, of which are here: %s", n, state)
	}
	if got, err := copyTo("other://c/b:1", verbs.CopyOptions{}); err != nil || !got.Here || svc.count("open") != 1 {
		t.Errorf("the same again: %+v, %v; %d requests for the bytes", got, err, svc.count("open"))
	}
	// What another image has.
	other.put("c/b:2", []byte("taken"))
	if _, err := copyTo("other://c/b:2", verbs.CopyOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another image: %v", err)
	}
	if _, err := copyTo("other://c/b:2", verbs.CopyOptions{PushOptions: verbs.PushOptions{Force: true}}); err != nil || !bytes.Equal(other.holds("c/b:2"), content) {
		t.Errorf("over another image, by force: %v", err)
	}
	// What is in the cache.
	if _, err := b.Pull(t.Context(), "lab://a/b:1", verbs.PullOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	before := svc.count("open")
	if _, err := copyTo("other://", verbs.CopyOptions{}); err != nil || !bytes.Equal(other.holds("a/b:1"), content) || svc.count("open") != before {
		t.Errorf("from the cache: %v, %d requests", err, svc.count("open")-before)
	}
	if _, err := b.Verbs.Copy(t.Context(), "lab://a/none:1", "other://", verbs.CopyOptions{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

// Other bytes than those of the digest get no name.
func TestCopy_corrupt(t *testing.T) {
	t.Parallel()
	b, svc, other := twoServices(t)
	img := svc.put("a/b:1", []byte("what it says"))
	svc.set(func() {
		svc.images[img.Ref] = stored{img, []byte("another text")}
		svc.history[img.Version] = svc.images[img.Ref]
	})
	_, err := b.Verbs.Copy(t.Context(), "lab://a/b:1", "other://", verbs.CopyOptions{}, nil)
	if !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Copy: %v, want ErrCorrupt", err)
	}
	if other.holds("a/b:1") != nil {
		t.Error("the copy has a name")
	}
}

// A service without digests: its image comes into the cache first, and what was copied is
// remembered.
func TestCopy_noDigest(t *testing.T) {
	t.Parallel()
	b, svc, other := twoServices(t)
	img := svc.put("a/b:1", []byte("content"))
	svc.set(func() {
		img.Digest = ""
		svc.images[img.Ref] = stored{img, []byte("content")}
	})
	for _, here := range []bool{false, true} {
		got, err := b.Verbs.Copy(t.Context(), "lab://a/b:1", "other://", verbs.CopyOptions{}, nil)
		if err != nil || got.Here != here || string(other.holds("a/b:1")) != "content" {
			t.Errorf("Copy = %+v, %v", got, err)
		}
	}
	if n := svc.count("open"); n != 1 {
		t.Errorf("%d requests for the bytes", n)
	}
}

// A source that is down is not the fault of whom it is copied to.
func TestCopy_sourceDown(t *testing.T) {
	t.Parallel()
	b, svc, _ := twoServices(t)
	svc.put("a/b:1", []byte("content"))
	svc.set(func() {
		svc.fault = func(kind string) int {
			if kind == "open" {
				return http.StatusForbidden
			}
			return 0
		}
	})
	_, err := b.Verbs.Copy(t.Context(), "lab://a/b:1", "other://", verbs.CopyOptions{}, nil)
	if e, ok := errors.AsType[*backends.Error](err); !errors.Is(err, fs.ErrPermission) || !ok || e.Remote != "lab" {
		t.Errorf("Copy: %v, want what lab says", err)
	}
}

// compared returns the actions by the URI of the destination.
func compared(t *testing.T, b *bench, from, to string) (map[string]verbs.Action, error) {
	t.Helper()
	all := map[string]verbs.Action{}
	for d, err := range b.Verbs.Compare(t.Context(), from, to, verbs.CompareOptions{Delete: true}) {
		if err != nil {
			return all, err
		}
		all[d.To.URI] = d.Action
	}
	return all, nil
}

func TestCompare(t *testing.T) {
	t.Parallel()
	for _, namesOnly := range []bool{false, true} {
		b, svc, other := twoServices(t)
		svc.namesOnly, other.namesOnly = namesOnly, namesOnly
		for _, ref := range []string{"v/same:1", "v/moved:1", "v/in/new:1", "w/else:1"} {
			svc.put(ref, []byte(ref))
		}
		other.put("m/same:1", []byte("v/same:1"))
		other.put("m/moved:1", []byte("what it was"))
		other.put("m/in/gone:1", []byte("gone"))
		other.put("other/stays:1", []byte("not meant"))
		got, err := compared(t, b, "lab/v", "other/m")
		want := map[string]verbs.Action{
			"other://m/same:1": verbs.ActionSame, "other://m/moved:1": verbs.ActionReplace,
			"other://m/in/new:1": verbs.ActionCopy, "other://m/in/gone:1": verbs.ActionDelete,
		}
		if err != nil || len(got) != len(want) {
			t.Errorf("Compare = %v, %v, want %v", got, err, want)
		}
		for uri, action := range want {
			if got[uri] != action {
				t.Errorf("%s: %q, want %q", uri, got[uri], action)
			}
		}
		if n := svc.count("open") + other.count("open"); n != 0 {
			t.Errorf("%d images were read", n)
		}
	}
}

// Nothing is to be deleted where the source does not say that it has none.
func TestCompare_doubt(t *testing.T) {
	t.Parallel()
	refuse := func(what string, status int) func(*service) {
		return func(svc *service) {
			svc.fault = func(kind string) int {
				if kind == what {
					return status
				}
				return 0
			}
		}
	}
	for name, change := range map[string]func(svc *service){
		"listing fails":   refuse("list", http.StatusForbidden),
		"unreachable":     func(svc *service) { svc.down = true },
		"no listing":      func(svc *service) { svc.noList = true },
		"refuses to tell": refuse("stat", http.StatusForbidden),
		"lists less":      func(svc *service) { svc.untold = "v/in" },
		"empty":           func(svc *service) { clear(svc.images) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, svc, other := twoServices(t)
			svc.put("v/one:1", []byte("one"))
			svc.put("v/in/two:1", []byte("two"))
			other.put("v/one:1", []byte("one"))
			other.put("v/in/two:1", []byte("two"))
			if name == "refuses to tell" {
				other.put("v/three:1", []byte("three"))
			}
			svc.set(func() { change(svc) })
			ctx := t.Context()
			var deletes []string
			var failed error
			for d, err := range b.Verbs.Compare(ctx, "lab", "other", verbs.CompareOptions{Delete: true}) {
				failed = err
				if d.Action == verbs.ActionDelete {
					deletes = append(deletes, d.To.URI)
				}
			}
			if len(deletes) > 0 {
				t.Errorf("to be deleted: %v", deletes)
			}
			if told := slices.Contains([]string{"refuses to tell", "lists less"}, name); failed == nil && !told {
				t.Error("there is no error")
			}
		})
	}
}
