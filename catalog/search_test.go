// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
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
			for what, seq := range map[string]iter.Seq2[verbs.Record, error]{
				"search": b.Search(ctx, "hello", ""), "images": b.Images(ctx, verbs.ImagesOptions{Query: "hello", Refresh: true}),
			} {
				got, err := uris(t, seq)
				if len(got) != 1 || (err == nil) != guessed {
					t.Errorf("%s with guessed = %v: %v, %v", what, guessed, got, err)
				}
			}
			_, err := uris(t, b.Search(ctx, "hello", "away"))
			wantErr(t, "search of that remote", err, backends.ErrUnavailable)
		}
	})
}
