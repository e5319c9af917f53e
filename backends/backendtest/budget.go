// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// Many services count requests by the day. Looking must not spend what reading needs.

const (
	walkedImages  = 60
	refusedImages = 10
	// mostRequests is what the facts of one image may cost: a manifest, a login that it
	// was asked for, an object store that knows the size.
	mostRequests = 3
	// mostListing is what a listing of them may cost besides.
	mostListing = 2*walkedImages + 20
)

var budgetTests = []subtest{
	// What "ls -lR" does: a listing, and the facts of each image, of which some are refused.
	{name: "Budget/walk", http: true, run: func(t *testing.T, s *suite) {
		var images []SeedImage
		for i := range walkedImages {
			name := "shown"
			if i < refusedImages {
				name = "denied"
			}
			images = append(images, image(fmt.Sprintf("org/%s%02d:1", name, i)))
		}
		r := s.open(t, images...)
		r.wire.set(refusing("denied"))
		if s.Caps.Has(backends.CanList) {
			for _, collection := range []string{"", "org"} {
				if _, err := backends.Collect(r.client.List(t.Context(), collection)); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.wire.requests.Load(); n > mostListing {
				t.Errorf("a listing of %d images costs %d requests", len(images), n)
			}
		}
		for _, img := range r.seed.Images {
			before := r.wire.requests.Load()
			_, err := r.client.Stat(t.Context(), img.Ref)
			if errors.Is(err, fs.ErrNotExist) || err != nil && !strings.HasPrefix(img.Ref.Name, "denied") {
				t.Errorf("Stat(%s): %v", img.Ref, err)
			}
			if n := r.wire.requests.Load() - before; n > mostRequests {
				t.Errorf("Stat(%s) costs %d requests (%v)", img.Ref, n, err)
			}
		}
	}},
	// A service that says that it has had enough is left alone: whoever asks next is told of
	// it, and of the time.
	{name: "Budget/limited", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		ref := r.seed.Images[0].Ref
		stat(t.Context(), t, r, ref) // what is asked once, has been
		r.wire.set(status(429, `{}`, "Retry-After", "3600"))
		look := map[string]func() error{"Stat": func() error { _, err := r.client.Stat(t.Context(), ref); return err }}
		if s.Caps.Has(backends.CanList) {
			look["List"] = func() error { _, err := backends.Collect(r.client.List(t.Context(), "vsoch")); return err }
		}
		for what, ask := range look {
			first := ask()
			if first == nil {
				continue // it was known
			}
			before := r.wire.requests.Load()
			for range 5 {
				if err := ask(); !errors.Is(err, backends.ErrRateLimited) || backends.RetryAfter(err) <= 0 {
					t.Errorf("%s of a service that has had enough: %v, first %v", what, err, first)
				}
			}
			if n := r.wire.requests.Load() - before; n != 0 {
				t.Errorf("%s: %d more requests to a service that has had enough", what, n)
			}
		}
	}},
}

// refusing answers 403 to every request that names word.
func refusing(word string) fault {
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		named := strings.Contains(req.URL.String()+fmt.Sprint(req.Header), word)
		if req.Body != nil && req.ContentLength > 0 && req.ContentLength < 1<<16 {
			text, err := io.ReadAll(req.Body)
			if err != nil {
				return nil, err
			}
			req.Body.Close()
			req.Body = io.NopCloser(bytes.NewReader(text))
			named = named || bytes.Contains(text, []byte(word))
		}
		if named {
			return status(403, `{"detail":"Unauthorized"}`, "Content-Type", "application/json")(req, next)
		}
		return next.RoundTrip(req)
	}
}
