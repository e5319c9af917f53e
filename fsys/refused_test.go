// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// A private collection is listed to nobody, and is there: its images open by name in a
// fresh tree. Where the registry could not be asked, a name is not absent.
func TestLookup_unlisted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opts  sregistrytest.Options
		token string
		want  map[string]error
	}{
		{sregistrytest.Options{}, sregistrytest.Token, map[string]error{
			"secret": nil, "secret/old:1.0.sif": nil, "secret/other:1.sif": fs.ErrNotExist, "none": fs.ErrNotExist, "public/old:1.0.sif": nil,
		}},
		{sregistrytest.Options{}, "", map[string]error{"secret": nil, "secret/old:1.0.sif": fs.ErrPermission, "none": fs.ErrNotExist}},
		// One request is the listing of the root.
		{sregistrytest.Options{Throttle: 1}, "", map[string]error{"secret": backends.ErrRateLimited, "none": backends.ErrRateLimited}},
	} {
		srv := sregistrytest.Start(t, tt.opts)
		for _, name := range []string{"public", "secret"} {
			srv.Add(sregistrytest.Image{Collection: name, Name: "old", Tag: "1.0", Content: []byte(name), Private: name == "secret", Old: true})
		}
		w := fsystest.New(t, fsystest.Options{})
		hc := backends.NewHTTPClient(backends.HTTPOptions{})
		t.Cleanup(hc.CloseIdleConnections)
		env := backends.Env{Remote: "lab", HTTP: hc, Config: map[string]any{"url": srv.URL}}
		if tt.token != "" {
			env.User = sregistrytest.User
			env.Secret = func(context.Context, bool) (string, error) { return tt.token, nil }
		}
		b, err := sregistry.Open(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		w.Catalog.SetRemote(catalog.Remote{Name: "lab", Type: "sregistry", Client: backends.NewClient("lab", b, backends.ClientOptions{MaxElapsed: 5 * time.Second})})
		if _, err := backends.Collect(w.Catalog.List(t.Context(), "lab", "")); err != nil {
			t.Fatal(err)
		}
		for path, want := range tt.want {
			_, err := walk(t, w.FS, "lab/"+path)
			if !errors.Is(err, want) || want == nil && err != nil || !errors.Is(want, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%+v: %s: %v, want %v", tt.opts, path, err, want)
			}
		}
	}
}

// walk looks up a path, part by part.
func walk(t *testing.T, tree *fsys.FS, path string) (node fsys.Node, err error) {
	t.Helper()
	node = tree.Root()
	for part := range strings.SplitSeq(path, "/") {
		dir, ok := node.(*fsys.Dir)
		if !ok {
			t.Fatalf("%s: a file on the way", path)
		}
		if node, err = dir.Lookup(t.Context(), part, fsys.Caller{}); err != nil {
			return nil, err
		}
	}
	return node, nil
}
