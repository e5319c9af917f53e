// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

const canMove = backends.CanMove | backends.CanPush | backends.CanDelete

var moveTests = []subtest{
	{name: "Move/roundtrip", needs: canMove, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		moved := r.seed.Images[0]
		for _, spec := range []string{"library/alpine:other", "fresh/deep/er:2", "fresh/new:1", "library/alpine:latest"} {
			from, to := moved.Ref, image(spec).Ref
			img, err := r.client.Move(t.Context(), stat(t.Context(), t, r, from), to, "")
			if err != nil {
				t.Fatalf("Move(%s, %s): %v", from, to, err)
			}
			if img.Ref != to {
				t.Errorf("Move(%s, %s).Ref = %s", from, to, img.Ref)
			}
			if now := stat(t.Context(), t, r, to); now.Version != img.Version {
				t.Errorf("Move(%s, %s) gave version %q, Stat gives %q", from, to, img.Version, now.Version)
			}
			moved.Ref = to
			wantImage(t, r, moved)
			if from != to {
				wantMissing(t, r, from)
			}
			for _, other := range r.seed.Images[1:] {
				wantImage(t, r, other)
			}
		}
	}},
	{name: "Move/exists", needs: canMove, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from, to := r.seed.Images[0], r.seed.Images[3]
		img := stat(t.Context(), t, r, from.Ref)
		if _, err := r.client.Move(t.Context(), img, to.Ref, ""); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Move over %s: %v, want fs.ErrExist", to.Ref, err)
		}
		if _, err := r.client.Move(t.Context(), img, to.Ref, img.Version); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Move over another version of %s: %v, want ErrChanged", to.Ref, err)
		}
		for _, same := range r.seed.Images {
			wantImage(t, r, same)
		}
	}},
	{name: "Move/replaces", needs: canMove, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from, to := r.seed.Images[0], r.seed.Images[1]
		old := stat(t.Context(), t, r, to.Ref).Version
		switch _, err := r.client.Move(t.Context(), stat(t.Context(), t, r, from.Ref), to.Ref, old); {
		case errors.Is(err, errors.ErrUnsupported):
			wantImage(t, r, from)
			wantImage(t, r, to)
			return
		case err != nil:
			t.Fatal(err)
		}
		wantMissing(t, r, from.Ref)
		to.Content = from.Content
		wantImage(t, r, to)
	}},
	{name: "Move/changed", needs: canMove, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Version = stat(t.Context(), t, r, r.seed.Images[1].Ref).Version
		fresh := image("fresh/new:1").Ref
		if _, err := r.client.Move(t.Context(), img, fresh, ""); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Move of another version gave %v, want ErrChanged", err)
		}
		wantMissing(t, r, fresh)
		wantImage(t, r, r.seed.Images[0])
		img.Ref = image("library/none:1").Ref
		if _, err := r.client.Move(t.Context(), img, fresh, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Move of what is not there gave %v, want fs.ErrNotExist", err)
		}
	}},
	{name: "Move/other-tags-stay", needs: canMove, run: func(t *testing.T, s *suite) {
		one, two := image("twins/image:1"), image("twins/image:1")
		two.Ref.Tag = "2"
		r := s.open(t, one, two)
		img := stat(t.Context(), t, r, one.Ref)
		for _, spec := range []string{"twins/image:3", "twins/moved:1"} {
			to := one
			to.Ref = image(spec).Ref
			if _, err := r.client.Move(t.Context(), img, to.Ref, ""); err != nil {
				t.Fatal(err)
			}
			wantMissing(t, r, img.Ref)
			wantImage(t, r, to)
			wantImage(t, r, two)
			img = stat(t.Context(), t, r, to.Ref)
		}
	}},
}
