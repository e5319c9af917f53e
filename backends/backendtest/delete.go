// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

var deleteTests = []subtest{
	{name: "Delete/gone", needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if err := r.client.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, r, img.Ref)
		for _, other := range r.seed.Images[1:] {
			wantImage(t, r, other)
		}
	}},
	{name: "Delete/twice", needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if err := r.client.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if err := r.client.Delete(t.Context(), img); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the second Delete gave %v, want fs.ErrNotExist", err)
		}
	}},
	{name: "Delete/unlisted", needs: backends.CanDelete | backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		if err := r.client.Delete(t.Context(), stat(t.Context(), t, r, image("vsoch/hello:2.0").Ref)); err != nil {
			t.Fatal(err)
		}
		wantNames(t, r, "vsoch", "vsoch/hello:latest")
	}},
	{name: "Delete/changed", needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Version = stat(t.Context(), t, r, r.seed.Images[1].Ref).Version
		if err := r.client.Delete(t.Context(), img); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Delete of another version gave %v, want ErrChanged", err)
		}
		wantImage(t, r, r.seed.Images[0])
	}},
	{name: "Delete/moved", needs: backends.CanDelete | backends.CanPush, run: func(t *testing.T, s *suite) {
		for _, named := range []bool{false, true} {
			r := s.open(t, typical()...)
			now := r.seed.Images[0]
			old := stat(t.Context(), t, r, now.Ref)
			now.Content = content("other", 900)
			src := source(now.Content)
			src.Replaces = old.Version
			if _, err := r.client.Push(t.Context(), now.Ref, src); err != nil {
				t.Fatal(err)
			}
			if named {
				old.Ref.Version = old.Version
			}
			err := r.client.Delete(t.Context(), old)
			if !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Delete(%s) of a version that the tag does not mean any more gave %v, want ErrChanged", old.Ref, err)
			}
			wantImage(t, r, now)
			for _, other := range r.seed.Images[1:] {
				wantImage(t, r, other)
			}
		}
	}},
	{name: "Delete/version", needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Ref.Version = img.Version
		if err := r.client.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, r, r.seed.Images[0].Ref)
		for _, other := range r.seed.Images[1:] {
			wantImage(t, r, other)
		}
	}},
	{name: "Delete/other-tags-stay", needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		one, two := image("twins/image:1"), image("twins/image:1")
		two.Ref.Tag = "2"
		r := s.open(t, one, two)
		if err := r.client.Delete(t.Context(), stat(t.Context(), t, r, one.Ref)); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, r, one.Ref)
		wantImage(t, r, two)
	}},
}
