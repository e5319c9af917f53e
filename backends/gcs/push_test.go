// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
)

const testChunk = 256 << 10

var noon = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

func source(text []byte) backends.Source {
	return backends.Source{
		Content: bytes.NewReader(text), Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text)), Format: "sif", Modified: noon,
	}
}

// big returns bytes of four requests of a session, the last one short.
func big(seed byte) []byte {
	text := make([]byte, 3*testChunk+12345)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(text)
	return text
}

func mustRef(t *testing.T, spec string) backends.Ref {
	t.Helper()
	ref, err := backends.ParseRef(spec)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// sessions makes c use sessions for all but the smallest.
func sessions(c *client) *client {
	c.store.small, c.store.chunk = 1000, testChunk
	return c
}

// What is pushed is what the sregistry client looks for, and rclone.
func TestPush_metadata(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, map[string]any{"prefix": "/containers/"})
	src := source([]byte("image"))
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/hello:2.0"), src); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"type": "container", "client": "sregistry", "uri": "vsoch/hello:2.0", "mtime": "2024-02-29T12:00:00Z", "sha256": strings.TrimPrefix(src.Digest, "sha256:"),
	}
	if diff := cmp.Diff(want, srv.Metadata("containers/vsoch/hello:2.0.sif")); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:2.0"))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := c.Tag(t.Context(), img, "latest", "")
	if err != nil || copied.Digest != src.Digest || !copied.Modified.Equal(noon) {
		t.Errorf("Tag: %+v, %v", copied, err)
	}
	want["uri"] = "vsoch/hello:latest"
	if diff := cmp.Diff(want, srv.Metadata("containers/vsoch/hello:latest.sif")); diff != "" {
		t.Errorf("metadata of a copy (-want +got):\n%s", diff)
	}
	if _, err := c.Push(t.Context(), backends.Ref{Name: "root", Tag: "1"}, src); err != nil || srv.Metadata("containers/root:1.sif")["uri"] != "root:1" {
		t.Errorf("without a collection: %v, %v", srv.Metadata("containers/root:1.sif"), err)
	}
}

func TestPush_sessions(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, nil)
	sessions(c)
	text := big(1)
	for _, n := range []int{0, 1, 1000, 1001, testChunk - 1, testChunk, testChunk + 1, 2 * testChunk, len(text)} {
		ref := mustRef(t, fmt.Sprintf("vsoch/size:%d", n))
		src, last := source(text[:n]), int64(-1)
		src.Progress = func(stored int64) { last = stored }
		if _, err := c.Push(t.Context(), ref, src); err != nil || last != src.Size {
			t.Errorf("%d bytes: %v, progress %d", n, err, last)
		}
		if got := srv.Content(c.Path(ref, "sif")); !bytes.Equal(got, text[:n]) {
			t.Errorf("%d bytes are %d others", n, len(got))
		}
	}
	if n := srv.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A push that ended with the process goes on with what is missing, whatever the answer was
// that did not come.
func TestPush_resumes(t *testing.T) {
	t.Parallel()
	text := big(2)
	for _, test := range []struct {
		name string
		cut  int64 // how much of the second chunk comes in
		deaf bool  // or: it is served whole, but without an answer
	}{
		{name: "before the first byte of a chunk"}, {name: "in a chunk", cut: 100_000}, {name: "before the answer", deaf: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := gcstest.Start(t, gcstest.Options{})
			session, ref := &backendtest.Session{}, mustRef(t, "vsoch/big:1")
			push := func() error {
				hc := backends.NewHTTPClient(backends.HTTPOptions{})
				defer hc.CloseIdleConnections()
				src := source(text)
				src.Session = session
				_, err := sessions(openWith(t, srv, hc, nil, token)).Push(t.Context(), ref, src)
				return err
			}
			srv.SetHook(nth("session", 2, func(w http.ResponseWriter, r *http.Request) {
				srv.SetHook(nil)
				if !test.deaf {
					r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, test.cut), broken{}))
				}
				srv.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}))
			if err := push(); !errors.Is(err, backends.ErrUnavailable) {
				t.Fatalf("a push that breaks off: %v", err)
			}
			if srv.Content("vsoch/big:1.sif") != nil || srv.Sessions() != 1 || len(session.Load()) == 0 {
				t.Fatalf("there is %d bytes, %d sessions, state %s", len(srv.Content("vsoch/big:1.sif")), srv.Sessions(), session.Load())
			}
			before, stored := srv.Count("session"), srv.Stored()
			if err := push(); err != nil {
				t.Fatal(err)
			}
			want := 1 + int(int64(len(text))-stored+testChunk-1)/testChunk // one asks
			if n := srv.Count("session") - before; n != want || stored < testChunk || srv.Count("storage.objects.insert") != 1 {
				t.Errorf("after %d bytes the second push takes %d requests of the session, want %d", stored, n, want)
			}
			if !bytes.Equal(srv.Content("vsoch/big:1.sif"), text) || len(session.Load()) != 0 || srv.Sessions() != 0 {
				t.Errorf("other bytes, or state %s", session.Load())
			}
		})
	}
}

// broken is what follows where a connection ends.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// nth lets fn answer the n-th request of what.
func nth(what string, n int64, fn func(w http.ResponseWriter, r *http.Request)) gcstest.Hook {
	var count atomic.Int64
	return func(asked string, w http.ResponseWriter, r *http.Request) bool {
		if asked != what || count.Add(1) != n {
			return false
		}
		fn(w, r)
		return true
	}
}

// The last answer did not come: the object is there, and the next try finds that out.
func TestPush_lostAnswer(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"session", "storage.objects.insert"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			srv, c := serve(t, gcstest.Options{}, nil)
			text, n, want := big(3), int64(4), 1
			if sessions(c); what != "session" {
				c.store.small, n, want = smallSize, 1, 2 // the hook's own is counted too
			}
			srv.SetHook(nth(what, n, func(_ http.ResponseWriter, r *http.Request) {
				srv.SetHook(nil)
				srv.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}))
			ref := mustRef(t, "vsoch/big:1")
			cl := backends.NewClient("x", c, backends.ClientOptions{MaxElapsed: 10 * time.Second})
			if img, err := cl.Push(t.Context(), ref, source(text)); err != nil || img.Digest != source(text).Digest {
				t.Errorf("%+v, %v", img, err)
			}
			if srv.Count("storage.objects.insert") != want || !bytes.Equal(srv.Content("vsoch/big:1.sif"), text) {
				t.Errorf("it was sent %d times", srv.Count("storage.objects.insert"))
			}
		})
	}
}

// A session that is gone is one that has to be begun anew, in the same call of the client.
func TestPush_gone(t *testing.T) {
	t.Parallel()
	text := big(4)
	for _, status := range []int{404, 410, 499} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			srv, c := serve(t, gcstest.Options{}, nil)
			sessions(c)
			var once sync.Once
			srv.SetHook(nth("session", 3, func(w http.ResponseWriter, _ *http.Request) {
				once.Do(func() { srv.Forget(status) })
				w.WriteHeader(status)
			}))
			ref := mustRef(t, "vsoch/big:1")
			if _, err := c.Push(t.Context(), ref, source(text)); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%v, want ErrUnavailable: it can be tried again", err)
			}
			if _, err := c.Push(t.Context(), ref, source(text)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(srv.Content("vsoch/big:1.sif"), text) || srv.Count("storage.objects.insert") != 2 {
				t.Errorf("%d sessions were begun", srv.Count("storage.objects.insert"))
			}
			// One that is found gone when it is asked for.
			srv.SetHook(nth("session", 2, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
			other := mustRef(t, "vsoch/big:2")
			if _, err := c.Push(t.Context(), other, source(text)); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("503: %v", err)
			}
			srv.SetHook(nil)
			srv.Forget(status)
			if _, err := c.Push(t.Context(), other, source(text)); err != nil || !bytes.Equal(srv.Content("vsoch/big:2.sif"), text) {
				t.Errorf("after the session was forgotten: %v", err)
			}
		})
	}
}

// Who came first while a session was under way stays, and the session is cancelled.
func TestPush_raced(t *testing.T) {
	t.Parallel()
	for _, replaces := range []bool{false, true} {
		t.Run(fmt.Sprint("replaces=", replaces), func(t *testing.T) {
			t.Parallel()
			srv, c := serve(t, gcstest.Options{}, nil)
			sessions(c)
			ref, src := mustRef(t, "vsoch/big:1"), source(big(5))
			want := fs.ErrExist
			if replaces {
				srv.Put("vsoch/big:1.sif", []byte("before"), nil)
				img, err := c.Stat(t.Context(), ref)
				if err != nil {
					t.Fatal(err)
				}
				src.Replaces, want = img.Version, backends.ErrChanged
			}
			src.Commit = func() error {
				srv.Put("vsoch/big:1.sif", []byte("somebody else's"), nil)
				return nil
			}
			if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			if got := srv.Content("vsoch/big:1.sif"); string(got) != "somebody else's" || srv.Sessions() != 0 {
				t.Errorf("%q, %d sessions", got, srv.Sessions())
			}
			// Another push of the same bytes does not go on with a session that would replace something else.
			src.Commit = func() error { return errors.New("stopped") }
			img, err := c.Stat(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			src.Replaces = img.Version
			if _, err := c.Push(t.Context(), ref, src); err == nil || srv.Sessions() != 1 {
				t.Errorf("stopped before the end: %v, %d sessions", err, srv.Sessions())
			}
			srv.Put("vsoch/big:1.sif", []byte("third"), nil)
			src.Replaces, src.Commit = backends.ReplaceAny, nil
			if _, err := c.Push(t.Context(), ref, src); err != nil || srv.Sessions() != 0 {
				t.Errorf("after another version: %v, %d sessions", err, srv.Sessions())
			}
		})
	}
}

// What is damaged on its way becomes no object.
func TestPush_damaged(t *testing.T) {
	t.Parallel()
	srv := gcstest.Start(t, gcstest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	next := hc.Transport
	hc.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil && req.ContentLength > 10_000 {
			req = req.Clone(req.Context())
			req.Body = damaging{req.Body}
		}
		return next.RoundTrip(req)
	})
	c := openWith(t, srv, hc, nil, token)
	for _, small := range []int64{smallSize, 0} {
		c.store.small, c.store.chunk = small, testChunk
		if _, err := c.Push(t.Context(), mustRef(t, "vsoch/big:1"), source(big(6))); err == nil {
			t.Error("damaged bytes were stored")
		}
		if srv.Content("vsoch/big:1.sif") != nil || srv.Sessions() != 0 {
			t.Errorf("there is an object, or %d sessions", srv.Sessions())
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// damaging changes the last byte of each read that is a long one.
type damaging struct{ io.ReadCloser }

func (d damaging) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if n > 1000 {
		p[n/2] ^= 1
	}
	return n, err
}

// A session that is told to be elsewhere gets neither the bytes nor the login.
func TestPush_elsewhere(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{}, nil)
	sessions(c)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	t.Cleanup(other.Close)
	srv.SetHook(nth("storage.objects.insert", 1, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", other.URL+"/upload/x?upload_id=1")
	}))
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/big:1"), source(big(7))); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("%v, want ErrBadAnswer", err)
	}
}

// A copy of what is large takes several calls, and is not made of another version.
func TestCopy_calls(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, gcstest.Options{RewriteCalls: 4}, nil)
	srv.Put("v/a:1.sif", []byte("first"), nil)
	img, err := c.Stat(t.Context(), mustRef(t, "v/a:1"))
	if err != nil {
		t.Fatal(err)
	}
	before := srv.Count("")
	if _, err := c.Tag(t.Context(), img, "2", ""); err != nil || string(srv.Content("v/a:2.sif")) != "first" || srv.Count("storage.objects.rewrite") != 4 {
		t.Errorf("%v, %d calls", err, srv.Count("storage.objects.rewrite"))
	}
	if n := srv.Count("") - before; n > 5+3 {
		t.Errorf("a tag took %d requests, and 3 calls more", n)
	}
	srv.SetHook(nth("storage.objects.rewrite", 2, func(w http.ResponseWriter, r *http.Request) {
		srv.SetHook(nil)
		srv.Put("v/a:1.sif", []byte("second"), nil)
		srv.ServeHTTP(w, r)
	}))
	if _, err := c.Tag(t.Context(), img, "3", ""); !errors.Is(err, backends.ErrChanged) || srv.Content("v/a:3.sif") != nil {
		t.Errorf("what changed meanwhile: %v, %q", err, srv.Content("v/a:3.sif"))
	}
}

// zeros is a sparse file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// However large the file, nothing of it is in memory. It is not parallel, for the heap is that
// of all.
func TestPush_memory(t *testing.T) { //nolint:paralleltest // see above
	const size, limit = 256 << 20, 40 << 20
	srv, c := serve(t, gcstest.Options{}, nil)
	h := sha256.New()
	_, _ = io.Copy(h, io.NewSectionReader(zeros{}, 0, size))
	src := backends.Source{Content: zeros{}, Size: size, Digest: fmt.Sprintf("sha256:%x", h.Sum(nil)), Format: "sif"}
	var most uint64
	src.Progress = func(int64) {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		most = max(most, stats.HeapAlloc)
	}
	runtime.GC()
	if _, err := c.Push(t.Context(), mustRef(t, "v/big:1"), src); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB at most, %d requests", most>>20, srv.Count(""))
	if most > limit {
		t.Errorf("%d MiB of memory for a push of %d MiB", most>>20, size>>20)
	}
	// As docs/backends/google-storage.md says: to look for the name in two ways, to begin, 4 chunks.
	if n := srv.Count(""); n != 7 {
		t.Errorf("a push of %d MiB took %d requests", size>>20, n)
	}
}

// A login that expires between two requests is renewed, and the bytes are sent again.
func TestPush_renewed(t *testing.T) {
	t.Parallel()
	srv := gcstest.Start(t, gcstest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	var now atomic.Value
	now.Store(gcstest.Token)
	c := sessions(openWith(t, srv, hc, nil, func(context.Context, bool) (string, error) { return now.Load().(string), nil }))
	srv.SetHook(nth("session", 2, func(w http.ResponseWriter, r *http.Request) {
		srv.SetHook(nil)
		srv.Expire()
		srv.Accept("ya29.second")
		now.Store("ya29.second")
		srv.ServeHTTP(w, r)
	}))
	text := big(8)
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/big:1"), source(text)); err != nil || !bytes.Equal(srv.Content("vsoch/big:1.sif"), text) {
		t.Error(err)
	}
}
