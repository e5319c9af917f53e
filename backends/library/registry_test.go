// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// A Singularity Registry Server speaks a part of the library API, but does not say
// whether an image was uploaded. Nothing is done with it, whatever is asked first,
// and however it was found.
func TestRegistryServer(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(t *testing.T, srv *sregistrytest.Server) (url string){
		"library":  func(_ *testing.T, srv *sregistrytest.Server) string { return srv.URL },
		"endpoint": registryEndpoint,
		"hidden":   hiddenIdentity,
	} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		content := []byte("the image that is there")
		srv.Add(sregistrytest.Image{Collection: "tools", Name: "hello", Tag: "1", Content: content})
		b := newRemote(t, config{"url": where(t, srv), "entities": []string{sregistrytest.User}}, tokens(sregistrytest.Token))
		ref := backendtest.Ref(t, sregistrytest.User+"/tools/hello:1")
		src := backendtest.Source([]byte("another image"))
		src.Replaces = backends.ReplaceAny
		_, pushed := b.Push(t.Context(), ref, src)
		_, looked := b.Stat(t.Context(), ref)
		for what, err := range map[string]error{"Push": pushed, "Stat": looked} {
			if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), `type = "sregistry"`) {
				t.Errorf("%s: %s: %v, want to be told the right type", name, what, err)
			}
		}
		if !bytes.Equal(srv.Content("tools", "hello", "1"), content) {
			t.Errorf("%s: the image was replaced", name)
		}
		if n := srv.Count("POST ") + srv.Count("PUT "); n != 0 {
			t.Errorf("%s: %d requests that change something", name, n)
		}
	}
}

// registryEndpoint is an endpoint that names the server as its library.
func registryEndpoint(t *testing.T, srv *sregistrytest.Server) string {
	t.Helper()
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/assets/config/config.prod.json" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprintf(w, `{"libraryAPI":{"uri":%q}}`, srv.URL)
	})
}

// hiddenIdentity is a proxy that lets nothing through but the library API.
func hiddenIdentity(t *testing.T, srv *sregistrytest.Server) string {
	t.Helper()
	to, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

func serving(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
