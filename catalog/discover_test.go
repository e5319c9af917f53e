// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// newHub returns a catalogue with a real registry as the remote "hub".
func newHub(t *testing.T) (*ocitest.Registry, *bench) {
	t.Helper()
	reg := ocitest.Start(t, ocitest.Options{})
	backend, err := oci.Open(t.Context(), backends.Env{
		Remote: "hub", Type: "oci", HTTP: backends.NewHTTPClient(backends.HTTPOptions{}), Config: map[string]any{"url": reg.URL},
	})
	if err != nil {
		t.Fatal(err)
	}
	return reg, newBench(t, newService(), func(b *bench) {
		b.extra = []catalog.Remote{{Name: "hub", Type: "oci", URL: reg.URL, Client: backends.NewClient("hub", backend, backends.ClientOptions{})}}
	})
}

// asked returns what the registry was asked for, each once.
func asked(reg *ocitest.Registry) []string {
	var all []string
	for _, req := range reg.Requests() {
		path := strings.TrimPrefix(req.Path, "/v2/")
		if i := strings.Index(path, "sha256:"); i >= 0 {
			path = path[:i] + "DIGEST"
		}
		all = append(all, req.Method+" "+path)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A path that nobody has listed is opened without waiting for a listing.
func TestIsCollection_early(t *testing.T) {
	t.Parallel()
	reg, b := newHub(t)
	reg.PushSIF("org/team/hello", "1", tiny(t, "a"), nil)
	reg.PushSIF("org/team/world", "1", tiny(t, "b"), nil)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "/tags/") {
				<-release
			}
			next.ServeHTTP(w, req)
		})
	})
	ctx := t.Context()
	reg.Forget()
	for _, collection := range []string{"org", "org/team"} {
		if is, err := b.IsCollection(ctx, "hub", collection); err != nil || !is {
			t.Fatalf("IsCollection(%q) = %v, %v", collection, is, err)
		}
	}
	if _, err := b.Lookup(ctx, "hub", mustRef(t, "org/team/hello:1")); err != nil {
		t.Fatal(err)
	}
	for _, req := range asked(reg) { // the tags are still on their way
		if !strings.HasSuffix(req, " _catalog") && !strings.Contains(req, "/manifests/") {
			t.Errorf("also asked: %s", req)
		}
	}
	free()
	n := 0
	for e, err := range b.List(ctx, "hub", "org/team") {
		if err != nil || e.Collection != "" {
			t.Errorf("List: %v, %v", e, err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d images listed, want 2", n)
	}
	if n := reg.Count("", "/org/team/hello/tags/"); n != 1 {
		t.Errorf("the tags were asked for %d times, want once", n)
	}
}

func TestIsCollection_missing(t *testing.T) {
	t.Parallel()
	reg, b := newHub(t)
	reg.PushSIF("org/hello", "1", tiny(t, "a"), nil)
	reg.Forget()
	for _, collection := range []string{"nope", "org/nope", "org/hello"} {
		if is, err := b.IsCollection(t.Context(), "hub", collection); err != nil || is {
			t.Errorf("IsCollection(%q) = %v, %v", collection, is, err)
		}
	}
	if n := reg.Count("", "_catalog"); n != 1 {
		t.Errorf("the catalogue was asked for %d times, want once", n)
	}
}

// What a command says by its full name costs no listing.
func TestVerbs_requests(t *testing.T) {
	t.Parallel()
	const manifest, blob = "GET org/hello/manifests/1", "GET org/hello/blobs/DIGEST"
	verbs := map[string]struct {
		run  func(t *testing.T, b *bench, uri string) error
		want []string
	}{
		"get": {func(t *testing.T, b *bench, uri string) error {
			_, err := b.Get(t.Context(), uri)
			return err
		}, []string{manifest}},
		"inspect": {func(t *testing.T, b *bench, uri string) error {
			_, err := b.Inspect(t.Context(), uri)
			return err
		}, []string{blob, manifest}},
		"pull": {func(t *testing.T, b *bench, uri string) error {
			_, err := b.Pull(t.Context(), uri, verbs.PullOptions{}, nil)
			return err
		}, []string{blob, manifest}},
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, b := newHub(t)
			reg.PushSIF("org/hello", "1", tiny(t, "a"), nil)
			reg.Forget()
			if err := verb.run(t, b, "hub://org/hello:1"); err != nil {
				t.Fatal(err)
			}
			if got := asked(reg); !slices.Equal(got, verb.want) {
				t.Errorf("asked for %q, want %q", got, verb.want)
			}
			if n := reg.Count("", "/manifests/"); n != 1 {
				t.Errorf("%d requests for manifests, want 1", n)
			}
		})
	}
}

// A push looks at what it replaces before it sends the image and again before it
// makes it visible, and looks at the result.
func TestPush_requests(t *testing.T) {
	t.Parallel()
	reg, b := newHub(t)
	reg.Forget()
	if _, err := b.Push(t.Context(), file(t, tiny(t, "a")), "hub://org/hello:1", verbs.PushOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	put := slices.IndexFunc(reg.Requests(), func(r ocitest.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.Path, "/manifests/")
	})
	looks := 0
	for _, r := range reg.Requests()[:put] {
		if strings.Contains(r.Path, "/manifests/1") {
			looks++
		}
	}
	if looks != 2 {
		t.Errorf("the tag was looked at %d times before it was set, want 2", looks)
	}
	if n := reg.Count("", "/manifests/1"); n != 4 {
		t.Errorf("%d requests about the tag, want 4", n)
	}
}
