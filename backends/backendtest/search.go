// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

var searchTests = []subtest{
	{name: "Search/hit", needs: backends.CanSearch, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		want := image("vsoch/hello:2.0").Ref
		found, err := backends.Collect(r.client.Search(t.Context(), "hello"))
		if err != nil || !slices.ContainsFunc(found, func(img backends.Image) bool { return img.Ref == want }) {
			t.Errorf("Search(hello) = %v, %v, want %s in it", found, err, want)
		}
		for _, img := range found {
			if img.Ref.Name != want.Name {
				t.Errorf("Search(hello) found %s", img.Ref)
			}
		}
	}},
	{name: "Search/none", needs: backends.CanSearch, run: func(t *testing.T, s *suite) {
		found, err := backends.Collect(s.open(t, typical()...).client.Search(t.Context(), "zzzz-no-such-thing"))
		if err != nil || len(found) != 0 {
			t.Errorf("Search = %v, %v, want nothing", found, err)
		}
	}},
}

var shareTests = []subtest{
	{name: "Share/link", needs: backends.CanShare, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if link, err := r.client.Share(t.Context(), img, ""); err != nil || link == "" {
			t.Errorf("Share = %q, %v", link, err)
		}
	}},
}

var watchTests = []subtest{
	{name: "Watch/ends", needs: backends.CanWatch, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range r.client.Watch(ctx) {
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}},
}
