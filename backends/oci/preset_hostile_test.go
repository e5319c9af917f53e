// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
)

// lying is an API whose answer to everything is one text; %s in it is its own
// address, %d the number of the request. A second is a header.
func lying(t *testing.T, text string, header ...string) *fake {
	t.Helper()
	f := newFake(t)
	n := 0
	fill := func(s string) string {
		return strings.NewReplacer("%s", f.URL, "%d", fmt.Sprint(n)).Replace(s)
	}
	f.other = func(w http.ResponseWriter, _ *http.Request) {
		n++
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], fill(header[i+1]))
		}
		fmt.Fprint(w, fill(text))
	}
	return f
}

func TestPreset_hostileListing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		typ  string
		text string
		head []string
		want string // part of the error
	}{
		"hub goes elsewhere":     {"docker", `{"next":"https://evil.example/x","results":[]}`, nil, "not on"},
		"hub is opaque":          {"docker", `{"next":"x:.evil.example/","results":[]}`, nil, "not on"},
		"hub goes in a circle":   {"docker", `{"next":"%s/x","results":[]}`, nil, "circle"},
		"hub never ends":         {"docker", `{"next":"%s/x?page=%d","results":[]}`, nil, "more than"},
		"hub is no JSON":         {"docker", `<html>`, nil, "JSON"},
		"github goes elsewhere":  {"ghcr", `[]`, []string{"Link", `<https://evil.example/x>; rel="next"`}, "not on"},
		"github goes in circles": {"ghcr", `[]`, []string{"Link", `<%s/x>; rel="next"`}, "circle"},
		"quay never ends":        {"quay", `{"repositories":[],"next_page":"%d"}`, nil, "more than"},
		"quay goes in circles":   {"quay", `{"repositories":[],"next_page":"x"}`, nil, "circle"},
		"gitlab counts wrongly":  {"gitlab", `[]`, []string{"X-Next-Page", "../../evil"}, "X-Next-Page"},
		"gitlab goes in circles": {"gitlab", `[]`, []string{"X-Next-Page", "2"}, "circle"},
		"harbor goes elsewhere":  {"harbor", `[]`, []string{"Link", `<//evil.example/x>; rel="next"`}, "not on"},
		"harbor is huge":         {"harbor", `["` + strings.Repeat("x", 5<<20) + `"]`, nil, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := lying(t, tt.text, tt.head...)
			b := preset(t, tt.typ, config{"url": "http://127.0.0.1:9", "api": f.URL}, func(env *backends.Env) {
				if tt.typ == "ghcr" {
					as("me", "secret")(env)
				}
			})
			_, err := oci.Catalogue(t.Context(), b, "team")
			wantErr(t, "Catalogue", err, backends.ErrBadAnswer)
			if err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if n := len(f.requests()); n > 1000 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Names that cannot be, or are not of the namespace, are left out.
func TestPreset_hostileNames(t *testing.T) {
	t.Parallel()
	for typ, text := range map[string]string{
		"docker": `{"results":[{"name":"a"},{"name":"../b"},{"name":"C"},{"name":""},{"name":"p","repository_type":"plugin"}]}`,
		"quay": `{"repositories":[{"namespace":"team","name":"a"},{"namespace":"other","name":"b"},{"namespace":"team","name":"..%2f"},
			{"namespace":"team","name":"chart","kind":"application"}]}`,
		"gitlab": `[{"path":"team/a"},{"path":"teams/b"},{"path":"/etc/passwd"},{"path":"team/gone","status":"delete_ongoing"}]`,
		"harbor": `[{"name":"team/a"},{"name":"other/b"},{"name":"team/a b"}]`,
	} {
		b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": lying(t, text).URL})
		got, err := oci.Catalogue(t.Context(), b, "team")
		if diff := cmp.Diff([]string{"team/a"}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", typ, err, diff)
		}
	}
}

// An API that sends its clients elsewhere gets nothing there, neither by a
// header nor by the body of a login.
func TestPreset_hostileRedirect(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"docker", "ghcr", "quay", "gitlab", "harbor"} {
		evil, f := newFake(t), newFake(t)
		f.other = func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere(evil)+"/x", http.StatusTemporaryRedirect)
		}
		b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": f.URL}, as("$oauthtoken", "secret"))
		if _, err := oci.Catalogue(t.Context(), b, "team"); err == nil {
			t.Errorf("%s: no error", typ)
		}
		if seen := evil.requests(); len(seen) > 0 {
			t.Errorf("%s: the other host was asked %s", typ, seen[0].URL)
		}
	}
}

// Not parallel: it measures memory. Of a page only the names are kept: a listing
// of sixty pages of a megabyte each needs room for one or two.
func TestPreset_pagesAreNotHeld(t *testing.T) {
	const pages = 60
	f := newFake(t)
	padding := strings.Repeat("x", 1<<20)
	n, most := 0, uint64(0)
	f.other = func(w http.ResponseWriter, _ *http.Request) {
		n++
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
		if n < pages {
			w.Header().Set("Link", fmt.Sprintf(`<%s/x?page=%d>; rel="next"`, f.URL, n))
		}
		fmt.Fprintf(w, `[{"name":"team/image%d","description":"`, n)
		fmt.Fprint(w, padding)
		fmt.Fprint(w, `"}]`)
	}
	b := preset(t, "harbor", config{"url": "http://127.0.0.1:9", "api": f.URL})
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	repos, err := oci.Catalogue(t.Context(), b, "team")
	if err != nil || len(repos) != pages {
		t.Fatalf("%d repositories, %v", len(repos), err)
	}
	if grown := int64(most) - int64(before.HeapAlloc); grown > 12<<20 {
		t.Errorf("the heap grew by %d MiB while %d pages of 1 MiB were read", grown>>20, pages)
	}
}
