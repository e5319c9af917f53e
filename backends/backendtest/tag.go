// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

var tagTests = []subtest{
	{name: "Tag/roundtrip", needs: backends.CanTag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from := r.seed.Images[0]
		to := from
		to.Ref.Tag = "other"
		img, err := r.client.Tag(t.Context(), stat(t.Context(), t, r, from.Ref), "other", "")
		if err != nil {
			t.Fatal(err)
		}
		if img.Ref != to.Ref {
			t.Errorf("Tag gave %s, want %s", img.Ref, to.Ref)
		}
		if now := stat(t.Context(), t, r, to.Ref); now.Version != img.Version {
			t.Errorf("Tag gave version %q, Stat gives %q", img.Version, now.Version)
		}
		for _, want := range append([]SeedImage{to}, r.seed.Images...) {
			wantImage(t, r, want)
		}
		// Once more is success: nothing is to be done.
		if again, err := r.client.Tag(t.Context(), stat(t.Context(), t, r, from.Ref), "other", ""); err != nil || again.Version != img.Version {
			t.Errorf("the second Tag gave version %q, %v, want %q", again.Version, err, img.Version)
		}
	}},
	{name: "Tag/exists", needs: backends.CanTag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from, to := r.seed.Images[0], r.seed.Images[1]
		img := stat(t.Context(), t, r, from.Ref)
		if _, err := r.client.Tag(t.Context(), img, to.Ref.Tag, ""); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Tag over %s: %v, want fs.ErrExist", to.Ref, err)
		}
		if _, err := r.client.Tag(t.Context(), img, to.Ref.Tag, img.Version); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Tag over another version of %s: %v, want ErrChanged", to.Ref, err)
		}
		for _, same := range r.seed.Images {
			wantImage(t, r, same)
		}
	}},
	{name: "Tag/replaces", needs: backends.CanTag, run: func(t *testing.T, s *suite) {
		for _, named := range []bool{true, false} {
			r := s.open(t, typical()...)
			from, to := r.seed.Images[0], r.seed.Images[1]
			replaces := backends.ReplaceAny
			if named {
				replaces = stat(t.Context(), t, r, to.Ref).Version
			}
			if _, err := r.client.Tag(t.Context(), stat(t.Context(), t, r, from.Ref), to.Ref.Tag, replaces); err != nil {
				t.Fatal(err)
			}
			to.Content = from.Content
			wantImage(t, r, to)
			wantImage(t, r, from)
		}
	}},
	{name: "Tag/changed", needs: backends.CanTag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Version = stat(t.Context(), t, r, r.seed.Images[2].Ref).Version
		if _, err := r.client.Tag(t.Context(), img, "other", ""); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Tag of another version gave %v, want ErrChanged", err)
		}
		missing := img.Ref
		missing.Tag = "other"
		wantMissing(t, r, missing)
		img.Ref = image("library/none:1").Ref
		if _, err := r.client.Tag(t.Context(), img, "other", ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Tag of what is not there gave %v, want fs.ErrNotExist", err)
		}
	}},
	{name: "Untag/keeps", needs: backends.CanUntag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if err := r.client.Untag(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, r, img.Ref)
		exact := img.Ref
		exact.Version = img.Version
		got, err := read(t.Context(), r.client, stat(t.Context(), t, r, exact), 0, -1)
		if err != nil {
			t.Fatalf("the version without its tag: %v", err)
		}
		sameBytes(t, exact.String(), got, r.seed.Images[0].Content)
		for _, other := range r.seed.Images[1:] {
			wantImage(t, r, other)
		}
		if err := r.client.Untag(t.Context(), img); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the second Untag gave %v, want fs.ErrNotExist", err)
		}
	}},
	{name: "Untag/changed", needs: backends.CanUntag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Version = stat(t.Context(), t, r, r.seed.Images[1].Ref).Version
		if err := r.client.Untag(t.Context(), img); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Untag of another version gave %v, want ErrChanged", err)
		}
		wantImage(t, r, r.seed.Images[0])
	}},
	{name: "Untag/other-tags-stay", needs: backends.CanUntag | backends.CanTag, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		one := r.seed.Images[0]
		img := stat(t.Context(), t, r, one.Ref)
		if _, err := r.client.Tag(t.Context(), img, "other", ""); err != nil {
			t.Fatal(err)
		}
		if err := r.client.Untag(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, r, one.Ref)
		one.Ref.Tag = "other"
		wantImage(t, r, one)
	}},
	{name: "Versions/tags", needs: backends.CanListVersions, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		ref := image("vsoch/hello:2.0").Ref
		var tags []string
		for img, err := range r.client.Versions(t.Context(), ref) {
			if err != nil {
				t.Fatal(err)
			}
			if img.Ref.Collection != ref.Collection || img.Ref.Name != ref.Name || img.Ref.Version != "" {
				t.Errorf("Versions(%s) gave %s", ref, img.Ref)
			}
			if now := stat(t.Context(), t, r, img.Ref); img.Version != "" && img.Version != now.Version {
				t.Errorf("Versions(%s) gave %s the version %q, Stat gives %q", ref, img.Ref, img.Version, now.Version)
			}
			tags = append(tags, img.Ref.Tag)
		}
		if slices.Sort(tags); !slices.Equal(tags, []string{"2.0", "latest"}) {
			t.Errorf("Versions(%s) gave %q", ref, tags)
		}
	}},
	{name: "Versions/missing", needs: backends.CanListVersions, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, err := range r.client.Versions(t.Context(), image("vsoch/none:1").Ref) {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Versions of what is not there: %v, want fs.ErrNotExist", err)
			}
			return
		}
		t.Error("Versions of what is not there gave nothing")
	}},
	{name: "Versions/stop-early", needs: backends.CanListVersions, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, err := range r.client.Versions(t.Context(), image("vsoch/hello:2.0").Ref) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}},
}
