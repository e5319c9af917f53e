// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// copyTo copies one image within a remote.
func (r *remote) copyTo(ctx context.Context, img backends.Image, to backends.Ref, replaces string) (backends.Image, error) {
	return r.client.Copy(ctx, r.client, backends.CopySource{Image: img, Replaces: replaces}, to)
}

var copyTests = []subtest{
	{name: "Copy/roundtrip", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from := r.seed.Images[0]
		for _, spec := range []string{"library/alpine:other", "fresh/deep/er:2", "fresh/new:1"} {
			to := from
			to.Ref = image(spec).Ref
			img, err := r.copyTo(t.Context(), stat(t.Context(), t, r, from.Ref), to.Ref, "")
			if err != nil {
				t.Fatalf("Copy(%s, %s): %v", from.Ref, to.Ref, err)
			}
			if img.Ref != to.Ref {
				t.Errorf("Copy(%s, %s).Ref = %s", from.Ref, to.Ref, img.Ref)
			}
			if now := stat(t.Context(), t, r, to.Ref); now.Version != img.Version {
				t.Errorf("Copy(%s, %s) gave version %q, Stat gives %q", from.Ref, to.Ref, img.Version, now.Version)
			}
			wantImage(t, r, to)
			for _, other := range r.seed.Images {
				wantImage(t, r, other)
			}
			// The same again is no other image, and no error.
			if _, err := r.copyTo(t.Context(), stat(t.Context(), t, r, from.Ref), to.Ref, ""); err != nil {
				t.Errorf("the same copy again: %v", err)
			}
		}
	}},
	{name: "Copy/exists", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		from, to := r.seed.Images[0], r.seed.Images[3]
		img := stat(t.Context(), t, r, from.Ref)
		if _, err := r.copyTo(t.Context(), img, to.Ref, ""); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Copy over %s: %v, want fs.ErrExist", to.Ref, err)
		}
		if _, err := r.copyTo(t.Context(), img, to.Ref, img.Version); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Copy over another version of %s: %v, want ErrChanged", to.Ref, err)
		}
		for _, same := range r.seed.Images {
			wantImage(t, r, same)
		}
	}},
	{name: "Copy/replaces", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		for _, any := range []bool{true, false} {
			r := s.open(t, typical()...)
			from, to := r.seed.Images[0], r.seed.Images[1]
			replaces := backends.ReplaceAny
			if !any {
				replaces = stat(t.Context(), t, r, to.Ref).Version
			}
			_, err := r.copyTo(t.Context(), stat(t.Context(), t, r, from.Ref), to.Ref, replaces)
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				t.Fatal(err)
			}
			if err == nil {
				to.Content, to.Modified = from.Content, from.Modified
			}
			wantImage(t, r, from)
			wantImage(t, r, to)
		}
	}},
	{name: "Copy/missing", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		fresh := image("fresh/new:1").Ref
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if err := r.client.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		_, err := r.copyTo(t.Context(), img, fresh, "")
		if err == nil { // a registry may keep for a while what has no name
			wantImage(t, r, SeedImage{Ref: fresh, Content: r.seed.Images[0].Content, Format: "sif", Modified: r.seed.Images[0].Modified})
			return
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Copy of what is not there gave %v, want fs.ErrNotExist or ErrChanged", err)
		}
		wantMissing(t, r, fresh)
	}},
	{name: "Copy/commit", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		fresh, stop := image("fresh/new:1").Ref, fmt.Errorf("%w: stop", fs.ErrPermission)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		src := backends.CopySource{Image: img, Commit: func() error { return stop }}
		if _, err := r.client.Copy(t.Context(), r.client, src, fresh); !errors.Is(err, stop) {
			t.Errorf("Copy that may not commit gave %v", err)
		}
		wantMissing(t, r, fresh)
	}},
	{name: "Copy/bad-name", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		to := r.seed.Images[1].Ref
		to.Version = "1"
		if _, err := r.copyTo(t.Context(), stat(t.Context(), t, r, r.seed.Images[0].Ref), to, ""); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Copy to a version gave %v, want fs.ErrInvalid", err)
		}
	}},
	// Two services of one kind, if they have no way to each other, leave it to who copies the bytes.
	{name: "Copy/between", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		one, other := s.open(t, typical()...), s.open(t)
		from := one.seed.Images[0]
		to := from
		to.Ref = image("fresh/new:1").Ref
		_, err := other.client.Copy(t.Context(), one.client, backends.CopySource{Image: stat(t.Context(), t, one, from.Ref)}, to.Ref)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			wantMissing(t, other, to.Ref)
		case err != nil:
			t.Fatal(err)
		default:
			wantImage(t, other, to)
		}
	}},
	{name: "Copy/foreign", needs: backends.CanCopy, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		other := backends.NewClient("other", struct{ backends.Backend }{r.Backend}, backends.ClientOptions{})
		src := backends.CopySource{Image: stat(t.Context(), t, r, r.seed.Images[0].Ref)}
		if _, err := r.client.Copy(t.Context(), other, src, image("fresh/new:1").Ref); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Copy from a backend of another kind gave %v, want errors.ErrUnsupported", err)
		}
	}},
}

var copyContainerTests = []subtest{
	{name: "Containers/copy", needs: backends.CanCopy, containers: true, run: func(t *testing.T, s *suite) {
		r, c, img := s.openContainer(t)
		var stored atomic.Int64
		for _, spec := range []string{"vsoch/tool:copied", "other/tool:1.0"} {
			to := Ref(t, spec)
			src := backends.CopySource{Image: img, Progress: func(n, _ int64) { stored.Store(n) }}
			got, err := r.client.Copy(t.Context(), r.client, src, to)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != img.Digest || got.Version != img.Version || got.Size != img.Size || got.Ref != to {
				t.Errorf("Copy gives %+v, want what %+v is", got, img)
			}
			layers, err := r.client.Layers(t.Context(), stat(t.Context(), t, r.client, to))
			if err != nil || !bytes.Equal(layers.Manifest, c.Manifest) {
				t.Fatalf("the copy has the manifest %s, %v", layers.Manifest, err)
			}
			for _, blob := range layers.Blobs {
				WantRead(t, r, blob, 0, -1, c.Blobs[blob.Digest])
			}
		}
	}},
}
