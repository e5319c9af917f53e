// SPDX-License-Identifier: Apache-2.0

package http_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	nethttp "net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/backends/http/webtest"
)

// A remote is an opened backend with a log of its requests.
type remote struct {
	backends.Backend
	client *backends.Client

	mu  sync.Mutex // guards the field below
	log []string
}

// open opens the backend. Settings are as in the configuration.
func open(t *testing.T, env backends.Env, settings map[string]any) *remote {
	t.Helper()
	r := &remote{}
	env.HTTP = backends.NewHTTPClient(backends.HTTPOptions{})
	next := env.HTTP.Transport
	env.HTTP.Transport = roundTripper(func(req *nethttp.Request) (*nethttp.Response, error) {
		r.mu.Lock()
		r.log = append(r.log, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		return next.RoundTrip(req)
	})
	t.Cleanup(next.(interface{ CloseIdleConnections() }).CloseIdleConnections)
	env.Remote, env.Config = "web", settings
	var err error
	if r.Backend, err = http.Open(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	r.client = backends.NewClient("web", r.Backend, backends.ClientOptions{MaxElapsed: 60 * time.Second})
	return r
}

type roundTripper func(*nethttp.Request) (*nethttp.Response, error)

func (f roundTripper) RoundTrip(req *nethttp.Request) (*nethttp.Response, error) { return f(req) }

// asked returns the requests since the last call.
func (r *remote) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

func (r *remote) stat(t *testing.T, spec string) backends.Image {
	t.Helper()
	img, err := r.client.Stat(t.Context(), ref(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (r *remote) read(ctx context.Context, img backends.Image, off, n int64) (string, error) {
	body, err := r.client.Open(ctx, img, off, n)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return string(text), err
}

// list returns the names in a collection, sorted; a collection ends in a slash.
func (r *remote) list(t *testing.T, collection string) []string {
	t.Helper()
	entries, err := backends.Collect(r.client.List(t.Context(), collection))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Collection != "" {
			names = append(names, e.Collection+"/")
		} else {
			names = append(names, e.Image.Ref.String()+backends.Ext(e.Image.Format))
		}
	}
	slices.Sort(names)
	return names
}

func ref(t *testing.T, spec string) backends.Ref {
	t.Helper()
	ref, err := backends.ParseRef(spec)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

var published = time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC)

// What lies in a folder is shown as the page of the type says, by all servers.
func TestLayout(t *testing.T) {
	t.Parallel()
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t)
			for _, path := range []string{
				"c/hello:2.0.sif", "c/hello.sif", "c/hello_1.0.sif", "c/old:1.simg", "c/older:1.img", "c/small:1.img.gz", "c/layers:1.oci.tar",
				"c/100%:1.sif", "c/at@home:1.sif", "c/a:b:c.sif", "c/:x.sif", "c/feature%2Fx:1%2F2.sif", "c/deep/er/x:1.sif", "top:1.sif",
				"c/samtools:1.20--h50ea8bc_1", "c/feature%2Fy:1", "c/top:latest",
				// Not images, or hidden.
				"c/README", "c/hello.txt", "c/.hidden:1.sif", "c/.git/x:1.sif", "c/SHA256SUMS", "c/noext", "c/MD5SUMS", "c/index:1.txt", "c/x:1.part", "c/x:1.sif.AbC123", "c/.hidden:1",
			} {
				srv.Put(path, []byte(path), published)
			}
			r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
			if diff := cmp.Diff([]string{"/top:1.sif", "c/"}, r.list(t, "")); diff != "" {
				t.Error(diff)
			}
			want := map[string]string{
				"c/hello:2.0.sif": "c/hello:2.0.sif", "c/hello:latest.sif": "c/hello.sif", "c/hello_1.0:latest.sif": "c/hello_1.0.sif",
				"c/old:1.simg": "c/old:1.simg", "c/older:1.img": "c/older:1.img", "c/small:1.img.gz": "c/small:1.img.gz", "c/layers:1.oci.tar": "c/layers:1.oci.tar",
				"c/100%25:1.sif": "c/100%:1.sif", "c/at%40home:1.sif": "c/at@home:1.sif", "c/a:b%3Ac.sif": "c/a:b:c.sif", "c/%3Ax:latest.sif": "c/:x.sif",
				"c/feature%2Fx:1%2F2.sif": "c/feature%2Fx:1%2F2.sif", "c/samtools:1.20--h50ea8bc_1": "c/samtools:1.20--h50ea8bc_1", "c/feature%2Fy:1": "c/feature%2Fy:1",
				"c/top:latest": "c/top:latest",
			}
			names := append(slices.Collect(maps.Keys(want)), "c/deep/")
			slices.Sort(names)
			if diff := cmp.Diff(names, r.list(t, "c")); diff != "" {
				t.Error(diff)
			}
			fresh := open(t, backends.Env{}, map[string]any{"url": srv.URL}) // that has seen no listing
			for spec, content := range want {
				for _, r := range []*remote{r, fresh} {
					img := r.stat(t, spec)
					if text, err := r.read(t.Context(), img, 0, -1); text != content || err != nil || !img.Modified.Equal(published) {
						t.Errorf("%s is %+v: %q, %v, want %q", spec, img, text, err, content)
					}
				}
			}
			if diff := cmp.Diff([]string{"c/deep/er/x:1.sif"}, r.list(t, "c/deep/er")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Of two files with one name the same one is listed and opened.
func TestTwoFiles(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{})
	for _, path := range []string{"x.sif", "x:latest.sif", "x.simg", "y:1.simg", "y:1.img"} {
		srv.Put(path, []byte(path), published)
	}
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	if diff := cmp.Diff([]string{"/x:latest.sif", "/y:1.simg"}, r.list(t, "")); diff != "" {
		t.Error(diff)
	}
	for spec, want := range map[string]string{"/x": "x:latest.sif", "/y:1": "y:1.simg"} {
		if got, err := r.read(t.Context(), r.stat(t, spec), 0, -1); got != want || err != nil {
			t.Errorf("%s is %q, %v, want %q", spec, got, err, want)
		}
	}

	// One that goes before what was found is found once it was listed.
	srv.Put("y:1.sif", []byte("y:1.sif"), published)
	if diff := cmp.Diff([]string{"/x:latest.sif", "/y:1.sif"}, r.list(t, "")); diff != "" {
		t.Error(diff)
	}
	if got, err := r.read(t.Context(), r.stat(t, "/y:1"), 0, -1); got != "y:1.sif" || err != nil {
		t.Errorf("y:1 is %q, %v", got, err)
	}
}

// Files without an extension: those with a tag are images without any setting, others
// with it. One request lists them, one finds each, and what the listing tells is what the
// file tells.
func TestPlain(t *testing.T) {
	t.Parallel()
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t)
			for _, path := range []string{"samtools:1.20--h50ea8bc_1", "bwa:0.7", "tool", "my.tool", "x.sqsh", "both:1", "both:1.sif", "old.sif", "README", "index:1.md5"} {
				srv.Put("c/"+path, []byte(path), published)
			}
			r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
			if diff := cmp.Diff([]string{"c/both:1.sif", "c/bwa:0.7", "c/old:latest.sif", "c/samtools:1.20--h50ea8bc_1"}, r.list(t, "c")); diff != "" {
				t.Error(diff)
			}
			r.asked()
			img := r.stat(t, "c/samtools:1.20--h50ea8bc_1")
			if text, err := r.read(t.Context(), img, 0, -1); text != "samtools:1.20--h50ea8bc_1" || err != nil || img.Format != backends.FormatPlain {
				t.Errorf("%+v: %q, %v", img, text, err)
			}
			if asked := r.asked(); len(asked) > 3 || asked[0] != "HEAD /c/samtools:1.20--h50ea8bc_1" { // and a list of digests
				t.Errorf("requests %q", asked)
			}
			if text, err := r.read(t.Context(), r.stat(t, "c/both:1"), 0, -1); text != "both:1.sif" || err != nil {
				t.Errorf("two files of a name: %q, %v", text, err)
			}
			r = open(t, backends.Env{}, map[string]any{"url": srv.URL, "extensions": []any{"", ".sqsh"}})
			want := []string{"c/both:1.sif", "c/bwa:0.7", "c/my.tool:latest", "c/old:latest.sif", "c/samtools:1.20--h50ea8bc_1", "c/tool:latest", "c/x.sqsh:latest"}
			if diff := cmp.Diff(want, r.list(t, "c")); diff != "" {
				t.Error(diff)
			}
			for _, base := range []string{"my.tool", "tool", "x.sqsh"} {
				img := r.stat(t, "c/"+base)
				if text, err := r.read(t.Context(), img, 0, -1); text != base || err != nil || img.Format != backends.FormatBare {
					t.Errorf("%+v: %q, %v", img, text, err)
				}
			}
		})
	}
	if _, err := http.Open(t.Context(), backends.Env{Config: map[string]any{"url": "http://h", "extensions": []any{"sqsh"}}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("extensions = [\"sqsh\"]: %v, want %v", err, fs.ErrInvalid)
	}
}

// An index in JSON tells all of a file, without a list of digests too, and what it tells
// is what a look at the file tells.
func TestPlain_facts(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{JSON: true})
	srv.Put("c/bwa:0.7", []byte("bwa"), published)
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	for range 2 {
		entries, err := backends.Collect(r.client.List(t.Context(), "c"))
		if err != nil || len(entries) != 1 {
			t.Fatalf("%+v, %v", entries, err)
		}
		if diff := cmp.Diff(r.stat(t, "c/bwa:0.7"), entries[0].Image); diff != "" {
			t.Error(diff)
		}
	}
}

// A file that was replaced is not read as the old one, by any server.
func TestOpen_changed(t *testing.T) {
	t.Parallel()
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t)
			for i, old := range []time.Time{published.Add(time.Hour), published.Add(-time.Hour), published} {
				path := fmt.Sprintf("c/%d:1.sif", i)
				srv.Put(path, []byte("the first bytes"), published)
				r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
				img := r.stat(t, path)
				content := "other of the same size"[:15]
				if old.Equal(published) {
					content = "of another size" + "."
				}
				srv.Put(path, []byte(content), old)
				if text, err := r.read(t.Context(), img, 0, -1); !errors.Is(err, backends.ErrChanged) {
					t.Errorf("replaced by one of %v: %q, %v, want ErrChanged", old, text, err)
				}
				if now := r.stat(t, path); now.Version == img.Version {
					t.Errorf("replaced by one of %v: both have version %q", old, now.Version)
				} else if text, err := r.read(t.Context(), now, 2, 5); text != content[2:7] || err != nil {
					t.Errorf("the new one is %q, %v", text, err)
				}
			}
		})
	}
}

func TestDigests(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{})
	put := func(content, listed string, modified time.Time) {
		srv.Put("c/x:1.sif", []byte(content), modified)
		srv.Put("c/SHA256SUMS", []byte(sumLine("x:1.sif", []byte(listed))), modified)
	}
	put("one", "one", published)
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	img := r.stat(t, "c/x:1")
	if img.Digest == "" || img.Version != img.Digest {
		t.Fatalf("%+v, want a digest", img)
	}

	// Written anew, it is the same still; also for one who knows only the version.
	put("one", "one", published.Add(time.Hour))
	for _, r := range []*remote{r, open(t, backends.Env{}, map[string]any{"url": srv.URL})} {
		if text, err := r.read(t.Context(), img, 0, -1); text != "one" || err != nil {
			t.Errorf("%q, %v after the file was touched", text, err)
		}
	}

	// Replaced by another, with its digest, which is seen at once.
	put("two", "two", published.Add(2*time.Hour))
	if text, err := r.read(t.Context(), img, 0, -1); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("%q, %v, want ErrChanged", text, err)
	}
	now := r.stat(t, "c/x:1")
	if text, err := r.read(t.Context(), now, 0, -1); text != "two" || err != nil || now.Version == img.Version {
		t.Errorf("%+v: %q, %v", now, text, err)
	}
	if _, err := r.Stat(t.Context(), backends.Ref{Collection: "c", Name: "x", Tag: "1", Version: img.Version}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old version: %v, want fs.ErrNotExist", err)
	}

	// With no list, or no wish for one, the server's own validator is the version.
	off := open(t, backends.Env{}, map[string]any{"url": srv.URL, "sums": ""})
	if img := off.stat(t, "c/x:1"); img.Digest != "" || img.Version[0] != '"' {
		t.Errorf("%+v, want an ETag", img)
	}
	if got := off.asked(); len(got) != 1 {
		t.Errorf("asked %q", got)
	}
}

// A server that shows no index still gives what is named, or what is in the list
// of digests.
func TestList_forbidden(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{NoIndex: true})
	srv.Put("c/x:1.sif", []byte("x"), published)
	srv.Put("d/y:1.simg", []byte("y"), published)
	srv.Put("d/SHA256SUMS", []byte(sumLine("y:1.simg", []byte("y"))+sumLine("../c/x:1.sif", []byte("x"))), published)
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	for _, collection := range []string{"", "c"} {
		got, err := backends.Collect(r.client.List(t.Context(), collection))
		if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("List(%q) = %v, %v, want errors.ErrUnsupported", collection, got, err)
		}
	}
	if got, err := backends.Collect(r.client.List(t.Context(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of what is not there = %v, %v", got, err)
	}
	if text, err := r.read(t.Context(), r.stat(t, "c/x:1"), 0, -1); text != "x" || err != nil {
		t.Errorf("what is named: %q, %v", text, err)
	}
	// The list names one image; of others that an index would have it says nothing.
	entries, err := backends.Collect(r.client.List(t.Context(), "d"))
	if err != nil || len(entries) != 2 || entries[0].Image.Ref.String() != "d/y:1" || entries[1].Untold == nil {
		t.Errorf("List(d) = %+v, %v", entries, err)
	}
}

// The numbers in docs/backends/http.md.
func TestRequests(t *testing.T) {
	t.Parallel()
	const images = 10_000
	for _, json := range []bool{false, true} {
		t.Run(fmt.Sprintf("json=%v", json), func(t *testing.T) {
			t.Parallel()
			srv := webtest.Nginx(t, webtest.Options{JSON: json})
			sums := strings.Builder{}
			srv.Put("c/image:0.sif", []byte("0"), published)
			for i := range images {
				base := fmt.Sprintf("image:%d.sif", i)
				if err := os.WriteFile(filepath.Join(srv.Root, "c", base), []byte("x"), 0o644); err != nil {
					t.Fatal(err)
				}
				sums.WriteString(sumLine(base, []byte("x")))
			}
			srv.Put("c/SHA256SUMS", []byte(sums.String()), published)
			r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
			began := time.Now()
			wantAsked := func(what string, want ...string) {
				t.Helper()
				got, list := r.asked(), "GET /c/SHA256SUMS"
				if time.Since(began) > 10*time.Second && !slices.Contains(want, list) {
					// On a busy machine the list of digests has to be asked for again.
					got = slices.DeleteFunc(got, func(req string) bool { return req == list })
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			entries, err := backends.Collect(r.client.List(t.Context(), "c"))
			if err != nil || len(entries) != images {
				t.Fatalf("%d entries, %v", len(entries), err)
			}
			whole := 0
			for _, e := range entries {
				if e.Image.Version != "" && e.Image.Size == 1 {
					whole++
				}
			}
			if json {
				wantAsked("list", "GET /c/", "GET /c/SHA256SUMS")
			} else {
				wantAsked("list", "GET /c/")
				r.stat(t, "c/image:7")
				wantAsked("facts of the first", "HEAD /c/image:7.sif", "GET /c/SHA256SUMS")
			}
			if (whole == images) != json {
				t.Errorf("%d images with all facts", whole)
			}
			img := r.stat(t, "c/image:8")
			wantAsked("facts of the next", "HEAD /c/image:8.sif")
			if text, err := r.read(t.Context(), img, 0, 1); text != "x" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
			wantAsked("a read", "GET /c/image:8.sif")
			_, _ = r.Stat(t.Context(), ref(t, "c/image:none"))
			wantAsked("what is not there", "HEAD /c/image:none.sif", "HEAD /c/image:none", "HEAD /c/image:none.simg", "HEAD /c/image:none.img", "HEAD /c/image:none.img.gz",
				"HEAD /c/image+none.oci.tar", "HEAD /c/image:none.oci.tar")
			_, _ = r.Stat(t.Context(), ref(t, "c/none"))
			if n := len(r.asked()); n != 12 {
				t.Errorf("a missing :latest took %d requests", n)
			}
			if err := os.Rename(filepath.Join(srv.Root, "c/image:9.sif"), filepath.Join(srv.Root, "c/image:9.img.gz")); err != nil {
				t.Fatal(err)
			}
			r.list(t, "c")
			r.asked()
			r.stat(t, "c/image:9")
			wantAsked("another format, listed", "HEAD /c/image:9.img.gz")
			r = open(t, backends.Env{}, map[string]any{"url": srv.URL})
			if text, err := r.read(t.Context(), img, 0, 1); text != "x" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
			wantAsked("a read after a restart", "HEAD /c/image:8.sif", "GET /c/SHA256SUMS", "GET /c/image:8.sif")
		})
	}
}
