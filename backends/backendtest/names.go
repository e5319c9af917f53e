// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

var namesTests = []subtest{
	nameTest("unicode", backends.Ref{Collection: "sammlung/größe", Name: "画像", Tag: "naïve"}),
	nameTest("long", backends.Ref{Collection: "long", Name: strings.Repeat("n", 120), Tag: strings.Repeat("t", 110)}),
	nameTest("colon", backends.Ref{Collection: "a:b", Name: "c:d", Tag: "e:f"}),
	nameTest("at", backends.Ref{Collection: "a@b", Name: "c@d", Tag: "e@f"}),
	nameTest("percent", backends.Ref{Collection: "a%2Fb", Name: "100%", Tag: "%41"}),
	nameTest("slash-in-tag", backends.Ref{Collection: "col", Name: "image", Tag: "feature/x"}),
	nameTest("dots", backends.Ref{Collection: ".hidden", Name: ".image", Tag: ".."}),
	nameTest("extension", backends.Ref{Collection: "col", Name: "image.sif", Tag: "1.0.sif"}),
	nameTest("space", backends.Ref{Collection: "my images", Name: " a b ", Tag: "- 1"}),
	nameTest("control", backends.Ref{Collection: "col", Name: "new\nline", Tag: "\x1b[31m"}),
	nameTest("query", backends.Ref{Collection: "a&b=c", Name: "what?", Tag: "#1+2"}),
	nameTest("dash", backends.Ref{Collection: "a-b", Name: "c-d", Tag: "e-f"}),
	nameTest("root", backends.Ref{Name: "image", Tag: "1"}),
	{name: "Names/case", run: func(t *testing.T, s *suite) {
		upper := image("Col/Image:Tag")
		r := s.openNamed(t, upper)
		wantImage(t, r, upper)
		for _, other := range []string{"col/Image:Tag", "Col/image:Tag", "Col/Image:tag"} {
			// A service may fold case, but then it says so: Stat tells its spelling.
			img, err := r.Stat(t.Context(), image(other).Ref)
			if err == nil && img.Ref != upper.Ref || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Stat(%s) = %s, %v", other, img.Ref, err)
			}
		}
	}},
}

// nameTest seeds an image of that name, finds it by name and in the listing,
// and, where the backend can, pushes and deletes another beside it.
func nameTest(name string, ref backends.Ref) subtest {
	return subtest{name: "Names/" + name, run: func(t *testing.T, s *suite) {
		img := image("any/name:1")
		img.Ref = ref
		r := s.openNamed(t, img)
		wantImage(t, r, img)
		if s.Caps.Has(backends.CanList) {
			wantListed(t, r, ref)
		}
		if !s.Caps.Has(backends.CanPush) {
			return
		}
		second := image("any/name:2")
		second.Ref = ref
		second.Ref.Tag += "2"
		if err := r.client.CheckPush(second.Ref); errors.Is(err, fs.ErrInvalid) {
			t.Logf("a name to read, not to push to: %v", err)
			return
		}
		stored := push(t, r, second)
		if stored.Ref != second.Ref {
			t.Errorf("Push gave %q, want %q", stored.Ref, second.Ref)
		}
		wantImage(t, r, second)
		wantImage(t, r, img)
		if s.Caps.Has(backends.CanDelete) {
			if err := r.client.Delete(t.Context(), stored); err != nil {
				t.Error(err)
			}
			wantMissing(t, r, second.Ref)
			wantImage(t, r, img)
		}
	}}
}

// openNamed opens the backend with one image, and ends the test where the
// backend says that there can be no such name.
func (s *suite) openNamed(t *testing.T, img SeedImage) *remote {
	t.Helper()
	err := s.open(t).client.CheckName(img.Ref)
	if errors.Is(err, fs.ErrInvalid) {
		t.Logf("not a name here: %v", err)
		t.SkipNow()
	}
	if err != nil {
		t.Fatalf("CheckName(%+v): %v, want nil or fs.ErrInvalid", img.Ref, err)
	}
	return s.open(t, img)
}

// wantListed walks down to the image, collection by collection.
func wantListed(t *testing.T, r *remote, ref backends.Ref) {
	t.Helper()
	at := ""
	if ref.Collection != "" {
		for part := range strings.SplitSeq(ref.Collection, "/") {
			below := part
			if at != "" {
				below = at + "/" + part
			}
			if got := names(collect(t, r, at)); !slices.Contains(got, below+"/") {
				t.Errorf("List(%q) = %q lacks %q", at, got, below)
			}
			at = below
		}
	}
	if got := names(collect(t, r, at)); !slices.Contains(got, ref.String()) {
		t.Errorf("List(%q) = %q lacks %q", at, got, ref)
	}
}
