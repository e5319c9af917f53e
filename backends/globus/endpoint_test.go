// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

// list returns what a collection has: URIs, and collections with a slash at the end.
func list(t *testing.T, c *client, collection string) (all []string) {
	t.Helper()
	for e, err := range c.List(t.Context(), collection) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Collection != "" {
			all = append(all, e.Collection+"/")
			continue
		}
		all = append(all, e.Image.Ref.String())
	}
	slices.Sort(all)
	return all
}

// The numbers of the page: docs/backends/globus.md.
func TestRequests(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{})
	for i := range 10_000 {
		srv.Put(id, fmt.Sprintf("/big/image%05d:1.sif", i), []byte("x"), time.Now())
	}
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	count := func(what string, want map[string]int, fn func() error) {
		t.Helper()
		srv.Requests()
		err := fn()
		if diff := cmp.Diff(want, srv.Requests()); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", what, err, diff)
		}
	}
	count("ls", map[string]int{"token": 1, "ls": 1}, func() error {
		if n := len(list(t, c, "big")); n != 10_000 {
			return fmt.Errorf("%d images", n)
		}
		return nil
	})
	ref := backends.Ref{Collection: "big", Name: "image04711", Tag: "1"}
	var img backends.Image
	count("stat", map[string]int{"stat": 1}, func() (err error) { img, err = c.Reader.Stat(t.Context(), ref); return err })
	read := func() error {
		body, err := c.Reader.Open(t.Context(), img, 0, 1)
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
		return err
	}
	count("first read", map[string]int{"token": 1, "endpoint": 1, "GET": 1}, read)
	count("read", map[string]int{"GET": 1}, read)
	push := func(name string) func() error {
		return func() error {
			_, err := c.Push(t.Context(), backends.Ref{Collection: "big", Name: name, Tag: "1"}, backendtest.Source([]byte("new")))
			return err
		}
	}
	count("push", map[string]int{"stat": 4, "ls": 1, "PUT": 1, "rename": 1}, push("new"))
	count("share", map[string]int{}, func() error {
		link, err := c.Share(t.Context(), img, "")
		if !strings.HasSuffix(link, "/big/image04711:1.sif") {
			return fmt.Errorf("%s, %w", link, err)
		}
		return err
	})
	to := ref
	to.Tag = "2"
	count("move", map[string]int{"stat": 5, "ls": 1, "rename": 1}, func() (err error) { img, err = c.Move(t.Context(), img, to, ""); return err })
	count("delete", map[string]int{"stat": 3, "ls": 1, "rename": 1, "submission_id": 1, "delete": 1, "task": 2}, func() error { return c.Delete(t.Context(), img) })
}

// A listing that comes in pages is whole, and one that says there is more and does not tell it
// is an error.
func TestList_pages(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{})
	for i := range 10 {
		srv.Put(id, fmt.Sprintf("/c/i%d:1.sif", i), []byte("x"), time.Now())
	}
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	c.page = 3
	if got := list(t, c, "c"); len(got) != 10 || srv.Requests()["ls"] != 4 {
		t.Errorf("%q", got)
	}
}

// Several collections are the first part of a name: by their name where it is one, else by UUID.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	lab := srv.Add(globustest.Collection{Name: "Lab: images"})
	twin1, twin2 := srv.Add(globustest.Collection{Name: "twin"}), srv.Add(globustest.Collection{Name: "twin"})
	other := srv.Add(globustest.Collection{Name: "other", Others: true})
	for _, id := range []string{lab, twin1, twin2, other} {
		srv.Put(id, "/img/c/a:1.sif", []byte(id), time.Now())
		srv.Put(id, "/elsewhere/b.sif", []byte("elsewhere"), time.Now())
		srv.Put(id, "/home/u/.singularity/shub/old.simg", []byte("old"), time.Now())
	}
	content := func(c *client, uri string) string {
		t.Helper()
		ref, err := backends.ParseRef(uri)
		if err != nil {
			t.Fatal(err)
		}
		img, err := c.Reader.Stat(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			return ""
		}
		if img.Ref.String() != ref.String() {
			t.Errorf("%s is called %s", uri, img.Ref)
		}
		body, err := c.Reader.Open(t.Context(), img, 0, -1)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			return ""
		}
		defer body.Close()
		text, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	for name, test := range map[string]struct {
		endpoint string
		root     []string
	}{
		"all of the account": {"", []string{"Lab: images/", twin1 + "/", twin2 + "/"}},
		"configured":         {lab + " " + other, []string{"Lab: images/", "other/"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, srv, nil, map[string]any{"endpoint": test.endpoint, "root": "img"}, secret)
			slices.Sort(test.root)
			if diff := cmp.Diff(test.root, list(t, c, "")); diff != "" {
				t.Errorf("root (-want +got):\n%s", diff)
			}
			for _, name := range []string{"Lab: images", lab, strings.ToUpper(lab)} {
				if got := content(c, name+"/c/a:1"); got != lab {
					t.Errorf("%s: %q", name, got)
				}
			}
			if got := list(t, c, "Lab: images/c"); !slices.Equal(got, []string{"Lab%3A images/c/a:1"}) {
				t.Errorf("%q", got)
			}
			// As sregistry says it: UUID:path.
			if got := content(c, lab+":/elsewhere/b"); got != "elsewhere" {
				t.Errorf("absolute: %q", got)
			}
			if got := content(c, lab+":.singularity/shub/old"); got != "old" {
				t.Errorf("from the home directory: %q", got)
			}
			if got := content(c, other+"/c/a:1"); got != other {
				t.Errorf("another's: %q", got)
			}
			_, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "none/c", Name: "a", Tag: "1"})
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("unknown: %v", err)
			}
			if err := c.CheckName(backends.Ref{Name: "a", Tag: "1"}); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("no collection: %v", err)
			}
		})
	}
	c := open(t, srv, nil, map[string]any{"endpoint": lab + "," + other, "root": "img"}, secret)
	for _, name := range []string{twin1, twin1 + ":/img"} {
		if _, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: name + "/c", Name: "a", Tag: "1"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("not configured: %v", err)
		}
	}
	img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: lab + "/c", Name: "a", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(t.Context(), img, backends.Ref{Collection: other + "/c", Name: "moved", Tag: "1"}, ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("move to another collection: %v, want ErrUnsupported", err)
	}
}

// Collections are found, the account's own first, each once.
func TestFindEndpoints(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	others := srv.Add(globustest.Collection{Name: "Lab of others", Others: true})
	mine := srv.Add(globustest.Collection{Name: "my lab"})
	personal := srv.Add(globustest.Collection{Name: "laptop", NoHTTPS: true})
	srv.Add(globustest.Collection{Name: "lab server", Gateway: true})
	for range 250 {
		srv.Add(globustest.Collection{Name: "many", Others: true})
	}
	c := open(t, srv, nil, map[string]any{}, secret)
	for query, want := range map[string][]backends.Endpoint{
		"lab": {
			{ID: mine, Name: "my lab", Kind: "GCSv5_guest_collection", Readable: true},
			{ID: others, Name: "Lab of others", Kind: "GCSv5_guest_collection", Readable: true},
		},
		"": {
			{ID: mine, Name: "my lab", Kind: "GCSv5_guest_collection", Readable: true},
			{ID: personal, Name: "laptop", Kind: "GCP_mapped_collection"},
		},
	} {
		var got []backends.Endpoint
		for e, err := range c.FindEndpoints(t.Context(), query) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	srv.Requests()
	n := 0
	for _, err := range c.FindEndpoints(t.Context(), "many") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if got := srv.Requests()["endpoint_search"]; n != 250 || got != 5 {
		t.Errorf("%d found in %d requests, want 250 in 5", n, got)
	}
}

// A collection without an HTTPS server can be listed, and says why it can do no more.
func TestNoHTTPS(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{Name: "laptop", NoHTTPS: true})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	if got := list(t, c, "c"); !slices.Equal(got, []string{"c/a:1"}) {
		t.Errorf("%q", got)
	}
	img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	_, opened := c.Reader.Open(t.Context(), img, 0, -1)
	_, pushed := c.Push(t.Context(), backends.Ref{Collection: "new", Name: "a", Tag: "1"}, backendtest.Source([]byte("abc")))
	_, shared := c.Share(t.Context(), img, "")
	for what, err := range map[string]error{"open": opened, "push": pushed, "share": shared} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "has no HTTPS server") {
			t.Errorf("%s: %v, want ErrUnsupported and why", what, err)
		}
	}
	if got := list(t, c, ""); !slices.Equal(got, []string{"c/"}) {
		t.Errorf("the push has left %q", got)
	}
}

// A public collection is read with a login that is not for its data, and without ranges if its
// server knows none.
func TestPublic(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{NoRange: true})
	id := srv.Add(globustest.Collection{Public: true})
	srv.Put(id, "/c/a:1.sif", []byte("abcdef"), time.Now())
	c := openAs(t, srv, nil, map[string]any{"endpoint": id}, "", func(_ context.Context, _ bool) (string, error) {
		return fmt.Sprintf(`{"resource_server": %q, "refresh_token": %q}`, transferServer, srv.RefreshToken(sregistryClient)), nil
	})
	img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := c.Reader.Open(t.Context(), img, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if text, err := io.ReadAll(body); err != nil || !bytes.Equal(text, []byte("cde")) {
		t.Errorf("%q, %v", text, err)
	}
	_, err = c.Push(t.Context(), backends.Ref{Collection: "c", Name: "b", Tag: "1"}, backendtest.Source([]byte("abc")))
	if !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login") {
		t.Errorf("push: %v, want ErrUnauthorized and what to do", err)
	}
}
