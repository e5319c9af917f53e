// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/http/webtest"
)

// A recorder is a transport that notes the methods of requests.
type recorder struct {
	http.Transport
	mu   sync.Mutex // guards the field below
	sent []string
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.sent = append(r.sent, req.Method)
	r.mu.Unlock()
	return r.Transport.RoundTrip(req)
}

// since returns the methods of the requests since the last call.
func (r *recorder) since() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := strings.Join(r.sent, " ")
	r.sent = nil
	return sent
}

// open returns the backend at a folder of srv, and what it sends.
func open(t *testing.T, srv *webtest.Server, folder string) (*client, *recorder) {
	t.Helper()
	rec := new(recorder)
	t.Cleanup(rec.CloseIdleConnections)
	b := backendtest.Open(t, Open, &http.Client{Transport: rec}, map[string]any{"url": srv.URL + "/" + folder})
	return b.(*client), rec
}

func source(text string) backends.Source {
	return backends.Source{
		Content: strings.NewReader(text), Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))),
		Format: backends.FormatSIF, Modified: time.Unix(1_700_000_000, 0),
	}
}

// The numbers of docs/backends/webdav.md.
func TestRequests(t *testing.T) {
	t.Parallel()
	const images = 10_000
	for name, want := range map[string]struct{ push, again, replace, tag, move, remove string }{
		"apache": {
			push:    "PROPFIND PROPFIND PUT PROPFIND PROPPATCH PUT PUT PROPFIND MOVE DELETE DELETE DELETE MOVE PROPFIND",
			again:   "PROPFIND PROPFIND PUT PROPFIND PROPPATCH MOVE PROPFIND",
			replace: "PROPFIND PUT PROPFIND PROPPATCH PROPFIND LOCK PROPFIND MOVE UNLOCK PROPFIND",
			tag:     "PROPFIND PROPFIND PROPFIND COPY PROPFIND PROPFIND PROPPATCH MOVE PROPFIND",
			move:    "PROPFIND PROPFIND PROPFIND PROPFIND MOVE PROPFIND",
			remove:  "PROPFIND PROPFIND PROPFIND LOCK PROPFIND DELETE UNLOCK",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := servers[name](t)
			for i := range images {
				srv.Put(fmt.Sprintf("many/image%d:1.sif", i), []byte("x"), time.Unix(1_700_000_000, 0))
			}
			c, rec := open(t, srv, "")
			check := func(what, want string) {
				t.Helper()
				if diff := cmp.Diff(want, rec.since()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			n := 0
			for e, err := range c.List(t.Context(), "many") {
				if err != nil || e.Image.Version == "" || e.Image.Size != 1 || e.Image.Modified.IsZero() {
					t.Fatalf("List gave %+v, %v", e.Image, err)
				}
				n++
			}
			if n != images {
				t.Errorf("%d images, want %d", n, images)
			}
			check("List", "PROPFIND")
			ref := backends.Ref{Collection: "many", Name: "image7", Tag: "1"}
			img, err := c.Stat(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			check("Stat", "PROPFIND")
			body, err := c.Open(t.Context(), img, 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(body)
			body.Close()
			if err != nil || !bytes.Equal(text, []byte("x")) {
				t.Errorf("read %q, %v", text, err)
			}
			check("Open", "GET")
			must := func(img backends.Image, err error) backends.Image {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				return img
			}
			ref.Name = "new"
			img = must(c.Push(t.Context(), ref, source("one")))
			check("Push", want.push)
			second := ref
			second.Tag = "second"
			must(c.Push(t.Context(), second, source("one")))
			check("another Push", want.again)
			src := source("two")
			src.Replaces = img.Version
			img = must(c.Push(t.Context(), ref, src))
			check("Push over another", want.replace)
			img = must(c.Tag(t.Context(), img, "2", ""))
			check("Tag", want.tag)
			to := img.Ref
			to.Tag = "3"
			img = must(c.Move(t.Context(), img, to, ""))
			check("Move", want.move)
			if err := c.Delete(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			check("Delete", want.remove)
		})
	}
}
