// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A fake answers what a test tells it to: for what no real registry does.
type fake struct {
	*httptest.Server
	mu    sync.Mutex // guards the fields below
	seen  []*http.Request
	paths map[string]http.HandlerFunc

	other http.HandlerFunc // answers what has no path; nil is 404; set before the first request
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{paths: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// ServeHTTP answers by the path, or 404.
func (f *fake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, req)
	answer := f.paths[req.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		answer = f.other
	}
	if answer == nil {
		http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}`, http.StatusNotFound)
		return
	}
	answer(w, req)
}

func (f *fake) on(path string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths[path] = answer
}

func (f *fake) text(path, text string, header ...string) {
	f.on(path, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		fmt.Fprint(w, text)
	})
}

// requests returns what was asked.
func (f *fake) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.seen...)
}

// leaks returns the headers and bodies that tell a secret.
func (f *fake) leaks() (found []string) {
	for _, req := range f.requests() {
		for name, values := range req.Header {
			if name == "Authorization" || name == "Cookie" || strings.Contains(strings.Join(values, " "), "secret") {
				found = append(found, req.Method+" "+name)
			}
		}
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			found = append(found, req.Method+" with a body")
		}
	}
	return found
}

// manifest puts the manifest of a SIF under repo:tag.
func (f *fake) manifest(repo, tag string, content []byte) {
	f.text("/v2/"+repo+"/manifests/"+tag, fmt.Sprintf(
		`{"schemaVersion":2,"config":{"mediaType":%q,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},`+
			`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocitest.SIFConfig, ocitest.SIFLayer, ocitest.Digest(content), len(content)))
}
