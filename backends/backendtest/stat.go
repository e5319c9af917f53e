// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

var capsTests = []subtest{{name: "Caps/declared", run: func(t *testing.T, s *suite) {
	if got := backends.CapsOf(s.open(t).Backend); got != s.Caps {
		t.Errorf("the backend can %q, the harness declares %q", got, s.Caps)
	}
}}}

var statTests = []subtest{
	{name: "Stat/tag", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, want := range r.seed.Images {
			img := stat(t.Context(), t, r, want.Ref)
			if img.Ref != want.Ref {
				t.Errorf("Stat(%s).Ref = %s", want.Ref, img.Ref)
			}
			checkFacts(t, img, want)
		}
	}},
	{name: "Stat/modified", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, want := range r.seed.Images {
			img := stat(t.Context(), t, r, want.Ref)
			if !img.Modified.IsZero() && !img.Modified.Equal(want.Modified) {
				t.Errorf("Stat(%s).Modified = %v, want %v", want.Ref, img.Modified, want.Modified)
			}
		}
	}},
	{name: "Stat/version", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		first := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		ref := first.Ref
		ref.Version = first.Version
		img := stat(t.Context(), t, r, ref)
		if img.Version != first.Version || img.Size != first.Size {
			t.Errorf("Stat(%s) = version %q size %d, want %q and %d", ref, img.Version, img.Size, first.Version, first.Size)
		}
		if img.Ref.Version != "" {
			t.Errorf("Stat(%s).Ref has a Version: %s", ref, img.Ref)
		}
	}},
	{name: "Stat/version-missing", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		ref := r.seed.Images[0].Ref
		for _, version := range []string{"sha256:" + strings.Repeat("0", 64), "no such version"} {
			ref.Version = version
			if img, err := r.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Stat(%s) = %v, %v, want fs.ErrNotExist", ref, img, err)
			}
		}
	}},
	{name: "Stat/versions-differ", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		seen := map[string]backends.Ref{}
		for _, seeded := range r.seed.Images {
			img, again := stat(t.Context(), t, r, seeded.Ref), stat(t.Context(), t, r, seeded.Ref)
			if img.Version == "" || img.Version != again.Version {
				t.Errorf("Stat(%s): version %q, then %q", seeded.Ref, img.Version, again.Version)
			}
			if other, ok := seen[img.Version]; ok {
				t.Errorf("%s and %s have other bytes but one version %q", other, seeded.Ref, img.Version)
			}
			seen[img.Version] = seeded.Ref
		}
	}},
	{name: "Stat/missing", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, spec := range []string{"library/alpine:none", "library/none:latest", "none/none:latest", "vsoch/hell:2.0", "org/team/tool/x:1"} {
			ref := image(spec).Ref
			if impossible(r.Backend, ref) {
				continue
			}
			img, err := r.client.Stat(t.Context(), ref)
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat(%s) = %v, %v, want fs.ErrNotExist", spec, img, err)
			} else if strings.Contains(err.Error(), fs.ErrNotExist.Error()) {
				t.Errorf("Stat(%s): %q speaks of a file", spec, err)
			}
		}
	}},
	{name: "Stat/badref", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		before := r.wire.requests.Load()
		for _, ref := range []backends.Ref{{}, {Collection: "..", Name: "x", Tag: "1"}, {Collection: "a//b", Name: "x", Tag: "1"}, {Name: "a\x00", Tag: "1"}} {
			if _, err := r.client.Stat(t.Context(), ref); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Client.Stat(%+v) gave %v, want fs.ErrInvalid", ref, err)
			}
		}
		if n := r.wire.requests.Load() - before; n != 0 {
			t.Errorf("%d requests for names that cannot be", n)
		}
	}},
	{name: "Stat/uses-client", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		before := r.wire.requests.Load()
		stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if r.wire.requests.Load() == before {
			t.Error("Stat sent no request through the *http.Client it was given")
		}
	}},
	{name: "Stat/head-refused", http: true, run: func(t *testing.T, s *suite) {
		for _, refusal := range []int{403, 404, 405, 501} {
			r := s.open(t, typical()...)
			r.wire.set(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				if req.Method == http.MethodHead {
					return status(refusal, "")(req, next)
				}
				return next.RoundTrip(req)
			})
			for range 2 { // what was learnt by the first must not mislead the second
				wantImage(t, r, r.seed.Images[0])
			}
			if img, err := r.Stat(t.Context(), image("library/none:latest").Ref); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat of nothing where HEAD gives %d = %v, %v, want fs.ErrNotExist", refusal, img, err)
			}
		}
	}},
	{name: "Stat/open-is-quiet", http: true, run: func(t *testing.T, s *suite) {
		if n := s.open(t).wire.requests.Load(); n != 0 {
			t.Errorf("opening the backend sent %d requests: a service that is down would keep others from being mounted", n)
		}
	}},
}

// checkFacts compares what the backend says of an image with the truth.
func checkFacts(t *testing.T, img backends.Image, want SeedImage) {
	t.Helper()
	if img.Size != int64(len(want.Content)) && img.Size != -1 {
		t.Errorf("%s: size %d, want %d", want.Ref, img.Size, len(want.Content))
	}
	if img.Version == "" {
		t.Errorf("%s: no version", want.Ref)
	}
	if img.Format != "" && img.Format != want.Format {
		t.Errorf("%s: format %q, want %q", want.Ref, img.Format, want.Format)
	}
	if err := backends.CheckDigest(img.Digest); err != nil {
		t.Errorf("%s: %v", want.Ref, err)
	}
	algorithm, _, _ := strings.Cut(img.Digest, ":")
	if sum := digests(want.Content)[algorithm]; img.Digest != sum {
		t.Errorf("%s: digest %q, want %q", want.Ref, img.Digest, sum)
	}
	for key, value := range want.Labels {
		if img.Labels != nil && img.Labels[key] != value {
			t.Errorf("%s: label %s = %q, want %q", want.Ref, key, img.Labels[key], value)
		}
	}
}

// digests returns the digests of text by algorithm; "" has "".
func digests(text []byte) map[string]string {
	return map[string]string{
		"md5":    fmt.Sprintf("md5:%x", md5.Sum(text)),
		"sha256": sha256Of(text),
		"sha512": fmt.Sprintf("sha512:%x", sha512.Sum512(text)),
	}
}

func sha256Of(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, want %d; they differ from offset %d", what, len(got), len(want), at)
}
