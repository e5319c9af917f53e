// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
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

// The same with the answers of the real server, as they are recorded: also what it says to
// the questions of a login.
func TestRegistryServer_recorded(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/recorded/registry_server.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Steps []struct {
			Method, Path, As string
			Answer           struct {
				Status     int
				Type, Text string
				JSON       json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(text, &recorded); err != nil || len(recorded.Steps) < 10 {
		t.Fatal(len(recorded.Steps), err)
	}
	var address string
	var unknown sync.Map
	address = serving(t, func(w http.ResponseWriter, r *http.Request) {
		as := map[string]string{"": "", "Bearer " + sregistrytest.Token: "bearer vanessa"}[r.Header.Get("Authorization")]
		for _, whose := range []string{as, ""} {
			for _, step := range recorded.Steps {
				if step.Method != r.Method || step.Path != r.URL.RequestURI() || step.As != whose {
					continue
				}
				w.Header().Set("Content-Type", step.Answer.Type)
				w.WriteHeader(step.Answer.Status)
				_, _ = w.Write(bytes.ReplaceAll(step.Answer.JSON, []byte("http://SERVER"), []byte(address)))
				return
			}
		}
		unknown.Store(r.Method+" "+r.URL.RequestURI(), true)
		w.WriteHeader(http.StatusNotFound)
	})
	b := newRemote(t, config{"url": address, "entities": []string{sregistrytest.User}}, tokens(sregistrytest.Token))
	ref := backendtest.Ref(t, sregistrytest.User+"/public/one:1")
	_, pushed := b.Push(t.Context(), ref, backendtest.Source([]byte("another image")))
	_, looked := b.Stat(t.Context(), ref)
	_, listed := backends.Collect(b.List(t.Context(), sregistrytest.User))
	for what, err := range map[string]error{"Push": pushed, "Stat": looked, "List": listed, "CheckLogin": b.CheckLogin(t.Context())} {
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), `type = "sregistry"`) {
			t.Errorf("%s: %v, want to be told the right type", what, err)
		}
	}
	for what := range unknown.Range {
		t.Errorf("%s was not asked of the real server", what)
	}
}
