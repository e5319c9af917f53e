// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
)

func readAll(t *testing.T, c *client, img backends.Image) (string, error) {
	t.Helper()
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return string(text), err
}

// As docs/backends/google-storage.md says.
func TestList_requests(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, nil)
	for i := range 10_000 {
		srv.Put(fmt.Sprintf("many/image%d:1.sif", i), []byte("x"), map[string]string{"mtime": "2024-02-29T12:00:00.000000001Z"})
	}
	n := 0
	for e, err := range c.List(t.Context(), "many") {
		if err != nil {
			t.Fatal(err)
		}
		if e.Image.Size != 1 || e.Image.Version == "" || e.Image.Digest == "" || e.Image.Modified.Year() != 2024 {
			t.Fatalf("%+v", e.Image)
		}
		n++
	}
	if n != 10_000 || srv.Count("") != 10 {
		t.Errorf("%d images in %d requests, want 10", n, srv.Count(""))
	}
	img, err := c.Stat(t.Context(), mustRef(t, "many/image77:1"))
	if _, readErr := readAll(t, c, img); err != nil || readErr != nil || srv.Count("") != 12 {
		t.Errorf("%v, %v, %d requests for a name and its bytes", err, readErr, srv.Count("")-10)
	}
}

// What sregistry, Google Build and people have left in a bucket.
func TestReader_others(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{PageSize: 2}, nil)
	sum := strings.Repeat("ab", 32)
	srv.Put("vsoch/hello:2.0@"+sum+".sif", []byte("new client"), map[string]string{"type": "container", "uri": "vsoch/hello:2.0@" + sum, "version": sum})
	srv.Put("vsoch/hello-1.0.simg", []byte("old client"), map[string]string{"type": "container", "version": "0123456789abcdef0123456789abcdef"})
	srv.Put("vsoch/built:1.sif", []byte("built"), map[string]string{"sha256sum": strings.ToUpper(sum)})
	srv.Put("vsoch/tool.sif", []byte("by hand"), map[string]string{"version": sum})
	srv.Put("vsoch/", nil, nil) // as the console makes a folder
	srv.Put("empty/", nil, nil)
	srv.Put("vsoch//odd.sif", []byte("x"), nil)
	srv.Put("vsoch/readme.md", []byte("x"), nil)
	got := map[string]string{}
	for e, err := range c.List(t.Context(), "vsoch") {
		if err != nil {
			t.Fatal(err)
		}
		algorithm, _, _ := strings.Cut(e.Image.Digest, ":")
		got[e.Image.Ref.String()+e.Collection] = algorithm
	}
	if diff := cmp.Diff(map[string]string{"vsoch/hello:2.0": "sha256", "vsoch/hello-1.0:latest": "md5", "vsoch/built:1": "sha256", "vsoch/tool:latest": "md5"}, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	for spec, want := range map[string]string{"vsoch/hello:2.0": "new client", "vsoch/hello:1.0": "old client", "vsoch/hello:2.0@" + sum: "new client", "vsoch/tool": "by hand"} {
		ref := mustRef(t, spec)
		if ref.Tag == "" {
			ref.Tag = backends.DefaultTag
		}
		img, err := c.Stat(t.Context(), ref)
		if err != nil {
			t.Errorf("Stat(%s): %v", spec, err)
			continue
		}
		if text, err := readAll(t, c, img); text != want || err != nil {
			t.Errorf("%s is %q, %v", spec, text, err)
		}
	}
	if entries, err := backends.Collect(c.List(t.Context(), "empty")); len(entries) != 0 || err != nil {
		t.Errorf("an empty folder: %v, %v", entries, err)
	}
}

// Versions that the bucket keeps can be listed, opened and read to their end.
func TestReader_versions(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{Versioned: true}, nil)
	ref := mustRef(t, "vsoch/hello:1")
	srv.Put("vsoch/hello:1.sif", []byte("first"), nil)
	old, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	srv.Put("vsoch/hello:1.sif", []byte("second"), nil)
	for range 2 {
		if text, err := readAll(t, c, old); text != "first" || err != nil {
			t.Errorf("what was replaced: %q, %v", text, err)
		}
		ref.Version = old.Version
		if img, err := c.Stat(t.Context(), ref); err != nil || img.Version != old.Version {
			t.Errorf("by its generation: %+v, %v", img, err)
		}
	}
	ref.Version = ""
	versions, err := backends.Collect(c.Versions(t.Context(), ref))
	if err != nil || len(versions) != 2 {
		t.Fatalf("Versions: %v, %v", versions, err)
	}
	img, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Delete: %v", err)
	}
	if text, err := readAll(t, c, img); text != "second" || err != nil {
		t.Errorf("an older version after Delete: %q, %v", text, err)
	}
}

// A bucket that keeps none.
func TestReader_replaced(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, nil)
	srv.Put("vsoch/hello:1.sif", []byte("first"), nil)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil {
		t.Fatal(err)
	}
	srv.Put("vsoch/hello:1.sif", []byte("other"), nil)
	if text, err := readAll(t, c, img); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("%q, %v, want ErrChanged", text, err)
	}
}

// The CRC32C that comes with the bytes is compared, before the last of them is given out.
func TestOpen_damaged(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, nil)
	srv.Put("vsoch/hello:1.sif", []byte("right"), nil)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil {
		t.Fatal(err)
	}
	srv.Damage("vsoch/hello:1.sif", []byte("wrong"))
	body, err := c.Open(t.Context(), img, 0, img.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.ReadFull(body, make([]byte, img.Size)); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("%d bytes, %v, want ErrCorrupt", n, err)
	}
}

// A missing bucket is not an empty one.
func TestList_noBucket(t *testing.T) {
	t.Parallel()
	srv := gcstest.Start(t, gcstest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	c := openWith(t, srv, hc, map[string]any{"bucket": "another"}, token)
	if all, err := backends.Collect(c.List(t.Context(), "")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `no bucket "another"`) {
		t.Errorf("%v, %v", all, err)
	}
	if err := c.CheckLogin(t.Context()); err == nil || !strings.Contains(err.Error(), `no bucket "another"`) {
		t.Errorf("CheckLogin: %v", err)
	}
}

// Everybody may read a public bucket; Google refuses a login that is none there too.
func TestLogin(t *testing.T) {
	t.Parallel()
	srv := gcstest.Start(t, gcstest.Options{Public: true})
	srv.Put("vsoch/hello:1.sif", []byte("x"), nil)
	private := gcstest.Start(t, gcstest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	account, revoked := string(srv.Account()), string(private.Account())
	private.Expire()
	fixed := func(text string) backends.SecretFunc {
		return func(context.Context, bool) (string, error) { return text, nil }
	}
	for _, test := range []struct {
		name   string
		srv    *gcstest.Server
		secret backends.SecretFunc
		want   error
		say    string
	}{
		{"nobody, public", srv, nil, nil, ""},
		{"nobody, private", private, nil, backends.ErrUnauthorized, `"sreg login conformance"`},
		{"another, public", srv, fixed("ya29.none"), backends.ErrUnauthorized, ""},
		{"a service account", srv, fixed(account), nil, ""},
		{"one that was deleted", private, fixed(revoked), backends.ErrUnauthorized, `"sreg login conformance"`},
	} {
		c := backendtest.Open(t, backendtest.LoggedIn(Open, "", test.secret), hc, map[string]any{"url": test.srv.URL, "bucket": gcstest.Bucket}).(*client)
		if err := c.CheckLogin(t.Context()); !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestOpen_settings(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]map[string]any{
		"no bucket":      {},
		"no name":        {"bucket": "a/b"},
		"a folder":       {"bucket": "images", "url": "https://proxy.example/x"},
		"a prefix":       {"bucket": "images", "prefix": "a//b"},
		"a long prefix":  {"bucket": "images", "prefix": strings.Repeat("x", 600)},
		"contradictions": {"bucket": "images", "anonymous": true, "credentials": "key.json"},
	} {
		if _, err := Open(t.Context(), backends.Env{Remote: "lab", Config: config}); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "lab") {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := Open(t.Context(), backends.Env{Remote: "lab", Config: map[string]any{"bucket": "images"}})
	if err != nil || backends.AddressOf(b) != "https://storage.googleapis.com" {
		t.Errorf("%v, %v", b, err)
	}
	f, err := b.(*client).store.file(object{Kind: "storage#object", Name: "a b/c:1.sif", Size: "1", Generation: "2"})
	if err != nil || f.URL != "https://console.cloud.google.com/storage/browser/_details/images/a%20b/c:1.sif" {
		t.Errorf("%+v, %v", f, err)
	}
}
