// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A search after a search goes through names in memory: it finds what the first
// one would.
func TestImages_again(t *testing.T) {
	t.Parallel()
	svc := newService()
	for i := range 300 {
		svc.put(fmt.Sprintf("vsoch/Hello-%03d:1.0", i), nil)
		svc.put(fmt.Sprintf("team/tool:v%d", i), nil)
	}
	b := newBench(t, svc)
	ctx := t.Context()
	images := func(query string) []string {
		t.Helper()
		got, err := uris(t, b.Images(ctx, verbs.ImagesOptions{Query: query, Remote: "lab"}))
		if err != nil {
			t.Fatalf("Images(%q): %v", query, err)
		}
		return got
	}
	if all, err := uris(t, b.Images(ctx, verbs.ImagesOptions{Remote: "lab", Refresh: true})); err != nil || len(all) != 600 {
		t.Fatalf("%d images listed, %v", len(all), err)
	}
	queries := []string{"hello-00", "HELLO-2*:1.0", "tool:v29", "lab://vsoch/hello-299", "b://team/tool:v7", "lab", "*", "team/*9", "none"}
	check := func(when string) {
		t.Helper()
		for _, query := range queries {
			again := images(query)
			b.restart()
			if diff := cmp.Diff(images(query), again); diff != "" {
				t.Errorf("%s: Images(%q) (-first +again):\n%s", when, query, diff)
			}
		}
		images(queries[0])
	}
	check("unchanged")

	svc.put("team/tool:v299.9", nil)
	svc.put("vsoch/Hello-2999:1.0", nil)
	svc.drop("team/tool:v29")
	b.Expire()
	for _, collection := range []string{"team", "vsoch"} {
		if err := b.Refresh(ctx, "lab", collection); err != nil {
			t.Fatal(err)
		}
	}
	check("after a refresh")

	path := filepath.Join(t.TempDir(), "new.simg")
	if err := os.WriteFile(path, tiny(t, "new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Push(ctx, path, "lab://new/tool:v290", verbs.PushOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lookup(ctx, "lab", mustRef(t, "team/tool:v1")); err != nil {
		t.Fatal(err)
	}
	queries = append(queries, "tool:v290")
	check("after a push")
}

// A remote that the settings of another program made appear, and of which nobody
// has said anything, spoils no search by being out of reach; one of which somebody
// has, does, and so does each that is asked for by name.
func TestSearch_outOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, guessed := range []bool{true, false} {
			away := newService()
			away.down = true
			svc := newService()
			svc.put("vsoch/hello:1", tiny(t, ""))
			b := newBench(t, svc, func(b *bench) {
				b.extra = []catalog.Remote{{Name: "away", Type: "test", Client: away.client("away"), Guessed: guessed}}
			})
			ctx := t.Context()
			got, err := uris(t, b.Images(ctx, verbs.ImagesOptions{Query: "hello", Refresh: true}))
			if len(got) != 1 || (err == nil) != guessed {
				t.Errorf("images with guessed = %v: %v, %v", guessed, got, err)
			}
			got, err = found(t, b.Search(ctx, verbs.SearchOptions{Queries: []string{"hello"}, Strict: true}))
			if len(got) != 1 || (err == nil) != guessed {
				t.Errorf("search with guessed = %v: %v, %v", guessed, got, err)
			}
			_, err = found(t, b.Search(ctx, verbs.SearchOptions{Queries: []string{"hello"}, Remote: "away"}))
			wantErr(t, "search of that remote", err, backends.ErrUnavailable)
		}
	})
}

// The best hits come first, each image once, query after query.
func TestSearch_order(t *testing.T) {
	t.Parallel()
	svc := newService()
	for _, name := range []string{"a/xgreen:1", "b/greenish:1", "c/green:1", "d/other:green", "green/z:1", "e/plain:1"} {
		svc.put(name, nil)
	}
	b := newBench(t, svc)
	if _, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Refresh: true})); err != nil {
		t.Fatal(err)
	}
	for queries, want := range map[string]string{
		"green":            "c/green:1 green/z:1 b/greenish:1 a/xgreen:1 d/other:green",
		"GREEN:1":          "c/green:1 a/xgreen:1",
		"lab://green":      "c/green:1 green/z:1 b/greenish:1 a/xgreen:1 d/other:green",
		"*green:?":         "a/xgreen:1 c/green:1",
		"lab://*/green*:1": "b/greenish:1 c/green:1 green/z:1",
		"plain green:1":    "e/plain:1 c/green:1 a/xgreen:1",
		"plain plain":      "e/plain:1",
		"lab://lab":        "",
		"none":             "",
		"lab://":           "a/xgreen:1 b/greenish:1 c/green:1 d/other:green e/plain:1 green/z:1",
		"*":                "a/xgreen:1 b/greenish:1 c/green:1 d/other:green e/plain:1 green/z:1",
	} {
		got, err := found(t, b.Search(t.Context(), verbs.SearchOptions{Queries: strings.Fields(queries)}))
		if err != nil {
			t.Errorf("%s: %v", queries, err)
		}
		if got := strings.ReplaceAll(strings.Join(got, " "), "lab://", ""); got != want {
			t.Errorf("%s: found %s, want %s", queries, got, want)
		}
	}
	for queries, want := range map[string]error{"nolab://x": fs.ErrNotExist, "[": fs.ErrInvalid, "x lab://[": fs.ErrInvalid} {
		if _, err := found(t, b.Search(t.Context(), verbs.SearchOptions{Queries: strings.Fields(queries)})); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", queries, err, want)
		}
	}
	if _, err := found(t, b.Search(t.Context(), verbs.SearchOptions{Queries: []string{"lab://x"}, Remote: "other"})); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("two remotes: %v, want ErrInvalid", err)
	}
}

// Labels and texts are searched of images that were inspected, are here or have them in
// the listing; of a name that means other bytes by now they are not.
func TestSearch_within(t *testing.T) {
	t.Parallel()
	image, err := os.ReadFile("inspect/testdata/greet-signed.sif")
	if err != nil {
		t.Fatal(err)
	}
	svc := newService()
	svc.put("c/inspected:1", image)
	svc.put("c/read:1", image)
	svc.put("c/nobody:1", tiny(t, "nobody"))
	b := newBench(t, svc)
	var none []string
	ctx := t.Context()
	matches := func(query string) []string {
		t.Helper()
		var all []string
		for hit, err := range b.Search(ctx, verbs.SearchOptions{Queries: []string{query}}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, strings.TrimPrefix(hit.URI, "lab://c/")+" "+hit.Match.Kind+" "+hit.Match.Text)
		}
		return all
	}
	if _, err := uris(t, b.Images(ctx, verbs.ImagesOptions{Refresh: true})); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "before", matches("busybox"), none)
	if _, err := b.Inspect(ctx, "lab://c/inspected:1"); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "by its help", matches("BusyBox"), []string{"inspected:1 text help: A small busybox image that greets: for demonstrations and tests."})
	wantDiff(t, "by a label", matches("org.example.role=GREETING"), []string{"inspected:1 label org.example.role=greeting"})
	wantDiff(t, "by a label's value", matches("Org.Example.Role=gree*"), []string{"inspected:1 label org.example.role=greeting"})
	wantDiff(t, "by a label's name", matches("label:author"), []string{"inspected:1 label Author=sregfs"})
	wantDiff(t, "by no such label", matches("author=nobody"), none)
	wantDiff(t, "by a part of a label", matches("role=greet"), none)

	if _, err := b.Warm(ctx, "lab://c/read:1", verbs.WarmOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "what is here", matches("bootstrap: localimage"), []string{
		"inspected:1 text definition: Bootstrap: localimage", "read:1 text definition: Bootstrap: localimage"})
	labels := 0
	for l, err := range b.Labels(ctx, verbs.LabelsOptions{Key: "author"}) {
		if err != nil || l.Value != "sregfs" {
			t.Errorf("label %+v, %v", l, err)
		}
		labels++
	}
	if labels != 2 {
		t.Errorf("%d labels, want those of 2 images", labels)
	}

	svc.put("c/inspected:1", tiny(t, "other"))
	b.Expire()
	if _, err := b.Lookup(ctx, "lab", mustRef(t, "c/inspected:1")); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "after it was replaced", matches("role=greeting"), none)
	wantDiff(t, "after it was replaced", matches("org.example.role=greeting"), []string{"read:1 label org.example.role=greeting"})
}
