// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

const manyImages = 250

var listTests = []subtest{
	{name: "List/root", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		wantNames(t, r, "", "library/", "org/", "vsoch/")
	}},
	{name: "List/collection", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		wantNames(t, r, "library", "library/alpine:3.20", "library/alpine:latest", "library/ubuntu:24.04")
		wantNames(t, r, "vsoch", "vsoch/hello:2.0", "vsoch/hello:latest")
	}},
	{name: "List/nested", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		// org/team is an image and a collection at once.
		wantNames(t, r, "org", "org/team/", "org/team:1")
		wantNames(t, r, "org/team", "org/team/tool:1.0")
	}},
	{name: "List/facts", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, e := range collect(t, r, "library") {
			i := slices.IndexFunc(r.seed.Images, func(si SeedImage) bool { return si.Ref == e.Image.Ref })
			if i < 0 {
				t.Errorf("unexpected %+v", e)
				continue
			}
			if e.Image.Version == "" {
				continue // only the name was told
			}
			checkFacts(t, e.Image, r.seed.Images[i])
			if img := stat(t.Context(), t, r, e.Image.Ref); img.Version != e.Image.Version {
				t.Errorf("%s: version %q in the listing, %q from Stat", img.Ref, e.Image.Version, img.Version)
			}
		}
	}},
	{name: "List/empty", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		wantNames(t, s.open(t), "")
	}},
	{name: "List/missing", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, collection := range []string{"none", "library/none", "vsoch/hello/none"} {
			got, err := backends.Collect(r.client.List(t.Context(), collection))
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("List(%q) = %v, %v, want fs.ErrNotExist", collection, got, err)
			}
		}
	}},
	{name: "List/many", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		var want []string
		var images []SeedImage
		for i := range manyImages {
			images = append(images, sized(fmt.Sprintf("many/image%d:%d", i%7, i), 40+i))
			want = append(want, images[i].Ref.String())
		}
		slices.Sort(want)
		wantNames(t, s.open(t, images...), "many", want...)
	}},
	{name: "List/stop-early", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for range 50 { // more often than a client has slots
			n := 0
			for _, err := range r.client.List(t.Context(), "library") {
				if err != nil {
					t.Fatal(err)
				}
				n++
				break
			}
			if n != 1 {
				t.Fatalf("%d entries before the break", n)
			}
		}
		wantNames(t, r, "vsoch", "vsoch/hello:2.0", "vsoch/hello:latest")
	}},
	{name: "List/cancel", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := backends.Collect(r.client.List(ctx, "library")); !errors.Is(err, context.Canceled) {
			t.Errorf("List after cancel: %v", err)
		}
	}},
	{name: "List/twice", needs: backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		seq := r.List(t.Context(), "vsoch")
		first, err1 := backends.Collect(seq)
		second, err2 := backends.Collect(seq)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if diff := cmp.Diff(names(first), names(second)); diff != "" {
			t.Errorf("a sequence ranged over twice differs: %s", diff)
		}
	}},
}

// List is the backend's own, if it has one.
func (r *remote) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	lister, ok := r.Backend.(backends.Lister)
	if !ok {
		return backends.Fail[backends.Entry](errors.ErrUnsupported)
	}
	return lister.List(ctx, collection)
}

func collect(t *testing.T, r *remote, collection string) []backends.Entry {
	t.Helper()
	entries, err := backends.Collect(r.client.List(t.Context(), collection))
	if err != nil {
		t.Fatalf("List(%q): %v", collection, err)
	}
	for _, e := range entries {
		if e.Untold != nil {
			t.Errorf("List(%q) does not tell all: %v", collection, e.Untold)
		}
	}
	if n := r.client.Hidden(); n != 0 {
		t.Errorf("List(%q) told %d impossible names", collection, n)
	}
	return entries
}

// names returns the entries' names, sorted; a collection ends in a slash. Nothing is
// said of what was not told.
func names(entries []backends.Entry) []string {
	all := []string{}
	for _, e := range entries {
		if e.Untold != nil {
			continue
		}
		if e.Collection != "" {
			all = append(all, e.Collection+"/")
			continue
		}
		all = append(all, e.Image.Ref.String())
	}
	slices.Sort(all)
	return all
}

// wantNames checks that a collection holds exactly want, each once.
func wantNames(t *testing.T, r *remote, collection string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, names(collect(t, r, collection))); diff != "" {
		t.Errorf("List(%q) (-want +got):\n%s", collection, diff)
	}
}
