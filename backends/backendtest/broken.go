// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/sregfs/sregfs/backends"
)

// A listing takes several answers: pages, or one question for each thing that the
// first answer names. Whichever of them is refused, the listing must not pass for
// a whole one.
var brokenTests = []subtest{
	brokenTest("lapsed", 401, true),
	brokenTest("refused", 403, false),
	brokenTest("gone", 404, false),
}

// pageOfTwo is what each request asks for that says how many names it wants.
const pageOfTwo = 2

// brokenTest refuses the n-th answer of a listing, with onward also those after it.
func brokenTest(name string, code int, onward bool) subtest {
	return subtest{name: "Broken/" + name, needs: backends.CanList, http: true, run: func(t *testing.T, s *suite) {
		for _, collection := range []string{"", "library"} {
			asked := int64(1)
			for n := int64(0); n <= asked; n++ { // first without a fault
				r := s.open(t, paged()...)
				var count atomic.Int64
				var begun atomic.Bool
				r.wire.set(smallPages(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
					if at := count.Add(1); n > 0 && (at == n || at > n && onward) {
						return status(code, `{}`)(req, next)
					}
					resp, err := next.RoundTrip(req)
					if err == nil && count.Load() < n && mentions("library", resp) {
						begun.Store(true)
					}
					return resp, err
				}))
				entries, err := backends.Collect(r.client.List(t.Context(), collection))
				if n == 0 {
					asked = count.Load()
				}
				if fault := checkBroken(r, collection, entries, err, begun.Load()); fault != "" {
					t.Errorf("List(%q) with HTTP %d for request %d of %d: %s", collection, code, n, asked, fault)
				}
			}
		}
	}}
}

// paged is what takes several pages of two names each.
func paged() []SeedImage {
	return []SeedImage{
		image("library/alpine:1"), image("library/alpine:2"), image("library/alpine:3"), image("library/busybox:1"), image("library/debian:1"),
		image("org/team:1"), image("vsoch/hello:1"),
	}
}

// mentions reports whether a page of the listing has name in it: requests for
// logins and versions come first.
func mentions(name string, resp *http.Response) bool {
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(text), iotest.ErrReader(cmp.Or(err, io.EOF))))
	return resp.StatusCode == http.StatusOK && bytes.Contains(text, []byte(name))
}

// checkBroken says what is wrong with what a listing told that was refused an answer,
// maybe after it had begun.
func checkBroken(r *remote, collection string, entries []backends.Entry, err error, begun bool) string {
	if begun && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported)) {
		return fmt.Sprintf("%v, which says that there is no such listing, but it had begun", err)
	}
	if err != nil {
		return ""
	}
	var told []backends.Entry
	untold := map[string]bool{}
	for _, e := range entries {
		if e.Untold != nil {
			untold[e.Image.Ref.Name] = true
			continue
		}
		told = append(told, e)
	}
	all := names(told)
	for _, want := range r.seed.Images {
		name, covered := want.Ref.String(), untold[""]
		switch {
		case collection == "":
			name = strings.SplitAfter(name, "/")[0]
		case want.Ref.Collection != collection:
			continue
		default:
			covered = covered || untold[want.Ref.Name]
		}
		if !covered && !slices.Contains(all, name) {
			return fmt.Sprintf("told %q, no error, and nothing of %s", all, name)
		}
	}
	if len(told) == 0 {
		return "nothing is told, and no error"
	}
	return ""
}

// smallPages makes every request for many names one for a few, but not that for a
// registry's whole catalogue: subtests may share a registry.
func smallPages(f fault) fault {
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		req = req.Clone(req.Context())
		query := req.URL.Query()
		if strings.HasSuffix(req.URL.Path, "/_catalog") {
			query = nil
		}
		for _, name := range []string{"n", "limit", "page_size", "per_page"} {
			if query.Has(name) {
				query.Set(name, fmt.Sprint(pageOfTwo))
				req.URL.RawQuery = query.Encode()
			}
		}
		if err := smallBody(req); err != nil {
			return nil, err
		}
		return f(req, next)
	}
}

// smallBody is for those that ask in JSON.
func smallBody(req *http.Request) error {
	if req.Header.Get("Content-Type") != "application/json" || req.Body == nil {
		return nil
	}
	text, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return err
	}
	var arg map[string]any
	if json.Unmarshal(text, &arg) == nil && arg["limit"] != nil {
		arg["limit"] = pageOfTwo
		if text, err = json.Marshal(arg); err != nil {
			return err
		}
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return nil
}
