// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// between puts a server of its own between the client's transport and the service:
// what answer says goes over a real connection. forward gives the service's answer.
func between(t *testing.T, answer func(w http.ResponseWriter, req *http.Request, forward func() (*http.Response, error))) fault {
	t.Helper()
	const original = "Backendtest-Original"
	onward := &http.Transport{DisableCompression: true}
	t.Cleanup(onward.CloseIdleConnections)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		out := req.Clone(req.Context())
		var err error
		if out.URL, err = url.Parse(req.Header.Get(original)); err != nil {
			panic(err) // we wrote it
		}
		out.Header.Del(original)
		out.RequestURI = ""
		answer(w, out, func() (*http.Response, error) { return onward.RoundTrip(out) })
	}))
	t.Cleanup(srv.Close)
	at, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		out := req.Clone(req.Context())
		out.Header.Set(original, req.URL.String())
		if out.Host == "" {
			out.Host = req.URL.Host
		}
		out.URL.Scheme, out.URL.Host = at.Scheme, at.Host
		resp, err := next.RoundTrip(out)
		if err == nil {
			resp.Request = req
		}
		return resp, err
	}
}

// pass gives the service's answer as it is.
func pass(w http.ResponseWriter, forward func() (*http.Response, error)) {
	resp, err := forward()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// A diversion is an answer to a request that changes something, by one who did not
// do it: http redirected to https, a page to sign in at.
type diversion struct {
	code int    // of the redirect; 200 for none
	body string // what comes in the end, with status 200
	nth  int64  // which request is diverted
}

func diversions() (all []diversion) {
	for nth := range int64(6) {
		all = append(all, diversion{http.StatusMovedPermanently, "{}", nth + 1}, diversion{http.StatusFound, html, nth + 1},
			diversion{http.StatusSeeOther, "", nth + 1}, diversion{http.StatusOK, html, nth + 1})
	}
	return all
}

func (d diversion) String() string {
	return fmt.Sprintf("request %d diverted by %d to %.20q", d.nth, d.code, d.body)
}

func (d diversion) fault(t *testing.T) fault {
	const elsewhere = "/backendtest/sign-in"
	var count atomic.Int64
	return between(t, func(w http.ResponseWriter, req *http.Request, forward func() (*http.Response, error)) {
		reads := req.Method == http.MethodGet || req.Method == http.MethodHead
		switch {
		case req.URL.Path == elsewhere || !reads && d.code == http.StatusOK && count.Add(1) == d.nth:
			w.Header().Set("Content-Type", "application/json")
			if d.body == html {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(w, d.body)
		case !reads && d.code != http.StatusOK && count.Add(1) == d.nth:
			_, _ = io.Copy(io.Discard, req.Body)
			http.Redirect(w, req, elsewhere, d.code)
		default:
			pass(w, forward)
		}
	})
}

var divertedTests = []subtest{
	{name: "Diverted/delete", http: true, needs: backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.openNumbered(t)
		for i, d := range diversions() {
			want := r.seed.Images[i]
			img := stat(t.Context(), t, r, want.Ref)
			r.wire.set(d.fault(t))
			err := r.Backend.(backends.Deleter).Delete(t.Context(), img)
			r.wire.set(nil)
			if err == nil {
				wantMissing(t, r, want.Ref)
				continue
			}
			if got, err := r.client.Stat(t.Context(), want.Ref); err == nil && got.Version != img.Version || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v: afterwards Stat gives %v, %v", d, got, err)
			}
		}
	}},
	{name: "Diverted/push", http: true, needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.openNumbered(t)
		for i, d := range diversions() {
			old := r.seed.Images[i]
			text := content(fmt.Sprintf("other %d", i), 5000)
			src := source(text)
			src.Replaces = backends.ReplaceAny
			r.wire.set(d.fault(t))
			_, err := r.Push(t, old.Ref, src)
			r.wire.set(nil)
			got, readErr := read(t.Context(), r.client, stat(t.Context(), t, r, old.Ref), 0, -1)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if isNew := bytes.Equal(got, text); !isNew && (err == nil || !bytes.Equal(got, old.Content)) {
				t.Errorf("%v: Push gave %v and left %d other bytes", d, err, len(got))
			}
		}
	}},
}

// openNumbered opens the backend on as many images as there are diversions.
func (s *suite) openNumbered(t *testing.T) *remote {
	t.Helper()
	var images []SeedImage
	for i := range diversions() {
		images = append(images, image(fmt.Sprintf("library/image%d:1", i)))
	}
	return s.open(t, images...)
}
