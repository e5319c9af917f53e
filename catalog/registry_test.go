// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// The life of an image in a real registry, with the real index.
func TestRealRegistry(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	for i := range 40 {
		reg.PushSIF("many/tags", fmt.Sprintf("%02d", i), tiny(t, fmt.Sprint(i)), nil)
	}
	backend, err := oci.Open(t.Context(), backends.Env{
		Remote: "hub", Type: "oci", HTTP: backends.NewHTTPClient(backends.HTTPOptions{}), Config: map[string]any{"url": reg.URL},
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := badger.Open(filepath.Join(t.TempDir(), "index"), badger.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := newBench(t, newService(), func(b *bench) {
		b.store.Store = db
		b.extra = []catalog.Remote{{Name: "hub", Type: "oci", URL: reg.URL, Client: backends.NewClient("hub", backend, backends.ClientOptions{})}}
	})
	ctx := t.Context()

	// What "ls" needs costs one manifest of each image, once, which tells what kind it
	// is; what "ls -l" needs costs one for each tag.
	reg.Forget()
	got, err := uris(t, b.Images(ctx, verbs.ImagesOptions{Query: "many", Remote: "hub", Refresh: true}))
	if err != nil || len(got) != 40 {
		t.Fatalf("Images: %d, %v", len(got), err)
	}
	if n := reg.Count("", "/manifests/"); n != 1 {
		t.Errorf("a listing read %d manifests, want 1", n)
	}
	for i := range 40 {
		img, err := b.Lookup(ctx, "hub", backends.Ref{Collection: "many", Name: "tags", Tag: fmt.Sprintf("%02d", i)})
		if err != nil || img.Size != int64(len(tiny(t, fmt.Sprint(i)))) {
			t.Fatalf("Lookup: %+v, %v", img, err)
		}
	}
	if n := reg.BlobBytes(); n != 0 {
		t.Errorf("looking read %d bytes of images", n)
	}

	// Push, see, inspect, pull, delete.
	content := tiny(t, "mine")
	path := file(t, content)
	if _, err := b.Push(ctx, path, "hub://vsoch/hello:2.0", verbs.PushOptions{}, nil); err != nil {
		t.Fatalf("Push: %v", err)
	}
	_, err = b.Push(ctx, file(t, tiny(t, "other")), "hub://vsoch/hello:2.0", verbs.PushOptions{}, nil)
	wantErr(t, "Push over it", err, fs.ErrExist)
	in, err := b.Inspect(ctx, "hub://vsoch/hello:2.0")
	if err != nil || in.Facts.Format != "simg" || in.Record.State != cache.Remote {
		t.Errorf("Inspect: %+v, %v", in, err)
	}
	to := filepath.Join(t.TempDir(), "hello.simg")
	if _, err := b.Pull(ctx, "hub://vsoch/hello:2.0", verbs.PullOptions{To: to}, nil); err != nil {
		t.Errorf("Pull: %v", err)
	}
	if pulled, err := os.ReadFile(to); err != nil || !bytes.Equal(pulled, content) {
		t.Errorf("what was pulled differs: %v", err)
	}
	if _, err := b.Remove(ctx, "hub://vsoch/hello:2.0", ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
	_, err = b.Lookup(ctx, "hub", mustRef(t, "vsoch/hello:2.0"))
	wantErr(t, "Lookup after Remove", err, fs.ErrNotExist)

	// All of it is still there when the registry is not.
	reg.Stop()
	b.restart()
	b.Expire()
	got, _ = uris(t, b.Images(ctx, verbs.ImagesOptions{Query: "many", Remote: "hub"}))
	if len(got) != 40 {
		t.Errorf("%d images offline, want 40", len(got))
	}
	if img, err := b.Lookup(ctx, "hub", backends.Ref{Collection: "many", Name: "tags", Tag: "00"}); err != nil {
		t.Errorf("Lookup offline: %+v, %v", img, err)
	}
}
