// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// client opens a remote with that name.
func client(t *testing.T, name string, cfg config) *backends.Client {
	t.Helper()
	return backends.NewClient(name, open(t, cfg).Backend, backends.ClientOptions{MaxElapsed: 3 * time.Second})
}

func mustCopy(t *testing.T, from, to *backends.Client, src, dst string, all bool) backends.Image {
	t.Helper()
	img, err := from.Stat(t.Context(), ref(t, src))
	if err != nil {
		t.Fatal(err)
	}
	got, err := to.Copy(t.Context(), from, backends.CopySource{Image: img, All: all}, ref(t, dst))
	if err != nil {
		t.Fatalf("Copy(%s, %s): %v", src, dst, err)
	}
	if got.Digest != img.Digest || got.Version != img.Version || got.Size != img.Size {
		t.Errorf("Copy gives %+v, want what %+v is", got, img)
	}
	return got
}

// sent returns how many bytes came to a registry in uploads.
func sent(reg *ocitest.Registry) (n int64) {
	for _, req := range reg.Requests() {
		if strings.Contains(req.Path, "/blobs/uploads/") {
			n += req.In
		}
	}
	return n
}

// wantSame looks whether two tags lead to the same document.
func wantSame(t *testing.T, one *ocitest.Registry, repo, tag string, other *ocitest.Registry, otherRepo, otherTag string) {
	t.Helper()
	was, _ := one.Manifest(repo, tag)
	is, ok := other.Manifest(otherRepo, otherTag)
	if !ok || !bytes.Equal(was, is) {
		t.Errorf("%s:%s is %s, want %s", otherRepo, otherTag, is, was)
	}
}

// Within one registry no byte of an image travels, also between two remotes; an index goes whole.
func TestCopy_mounts(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	img := ocitest.NewImage(t, true)
	reg.PushImage("one/library/tool", "1", img)
	reg.PushIndex("one/library/many", "1", "amd64", img)
	reg.PushSIF("one/library/sif", "1", random(300<<10), nil)
	one, two := client(t, "one", config{"url": reg.URL, "namespace": "one"}), client(t, "two", config{"url": reg.URL, "namespace": "two"})
	for _, name := range []string{"tool", "many", "sif"} {
		reg.Forget()
		mustCopy(t, one, two, name+":1", "library/"+name+":2", false)
		if n := sent(reg); n != 0 {
			t.Errorf("%s: %d bytes were sent", name, n)
		}
		for _, req := range reg.Requests() { // what may be read is the ends of layers, for the size
			if req.Method == http.MethodGet && strings.Contains(req.Path, "/blobs/") && req.Out > 64<<10 {
				t.Errorf("%s: %d bytes of %s were read", name, req.Out, req.Path)
			}
		}
		wantSame(t, reg, "one/library/"+name, "1", reg, "two/library/"+name, "2")
	}
}

// A registry that mounts nothing, as one that may not show the source to whoever writes, gets the
// bytes.
func TestCopy_mountRefused(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := random(300 << 10)
	reg.PushSIF("a/b", "1", content, nil)
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Query().Has("mount") {
				req.URL.RawQuery = ""
			}
			next.ServeHTTP(w, req)
		})
	})
	c := client(t, "lab", config{"url": reg.URL})
	got := mustCopy(t, c, c, "a/b:1", "c/d:1", false)
	if text := read(t, open(t, config{"url": reg.URL}), got, 0, -1); !bytes.Equal(text, content) {
		t.Error("other bytes came back")
	}
}

// Between registries the manifest stays as it is, and only blobs that are missing travel.
func TestCopy_between(t *testing.T) {
	t.Parallel()
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	img := ocitest.NewImage(t, true)
	from.PushImage("lib/tool", "1", img)
	var all, largest int64
	var there []byte
	for _, blob := range img.Blobs {
		all += int64(len(blob))
		if int64(len(blob)) > largest {
			largest, there = int64(len(blob)), blob
		}
	}
	to.PutBlob("lib/tool", there)
	to.Forget()
	one, two := client(t, "one", config{"url": from.URL}), client(t, "two", config{"url": to.URL})
	mustCopy(t, one, two, "lib/tool:1", "lib/tool:1", false)
	if n := sent(to); n != all-largest {
		t.Errorf("%d bytes were sent, want %d: one blob of %d was there", n, all-largest, largest)
	}
	wantSame(t, from, "lib/tool", "1", to, "lib/tool", "1")
	to.Forget()
	mustCopy(t, one, two, "lib/tool:1", "lib/tool:1", false)
	if n := sent(to); n != 0 {
		t.Errorf("%d bytes were sent the second time", n)
	}
}

// What several images have in common travels once, into whatever repositories.
func TestCopy_shared(t *testing.T) {
	t.Parallel()
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	img := ocitest.NewImage(t, true)
	from.PushImage("lib/one", "1", img)
	from.PushImage("lib/two", "1", img)
	one, two := client(t, "one", config{"url": from.URL}), client(t, "two", config{"url": to.URL})
	mustCopy(t, one, two, "lib/one:1", "lib/one:1", false)
	to.Forget()
	mustCopy(t, one, two, "lib/two:1", "lib/two:1", false)
	if n := sent(to); n != 0 {
		t.Errorf("%d bytes were sent of what the registry has", n)
	}
	wantSame(t, from, "lib/two", "1", to, "lib/two", "1")
}

// Of an index the image for this architecture is copied, or all.
func TestCopy_index(t *testing.T) {
	t.Parallel()
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	var children []map[string]any
	for _, arch := range []string{"amd64", "arm64"} {
		digest := from.PushSIF("a/b", "1-"+arch, []byte("image for "+arch), nil)
		body, _ := from.Manifest("a/b", digest)
		children = append(children, map[string]any{
			"mediaType": ocitest.OCIManifest, "digest": digest, "size": len(body),
			"platform": map[string]any{"os": "linux", "architecture": arch},
		})
	}
	from.PutManifest("a/b", "1", ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": children})
	one, two := client(t, "one", config{"url": from.URL}), client(t, "two", config{"url": to.URL})
	mustCopy(t, one, two, "a/b:1", "a/one:1", false)
	wantSame(t, from, "a/b", "1-amd64", to, "a/one", "1")
	mustCopy(t, one, two, "a/b:1@arm64", "a/other:1", false)
	wantSame(t, from, "a/b", "1-arm64", to, "a/other", "1")
	mustCopy(t, one, two, "a/b:1", "a/all:1", true)
	wantSame(t, from, "a/b", "1", to, "a/all", "1")
	mustCopy(t, one, two, "a/b:1@arm64", "a/arm:1", true)
	if img, err := two.Stat(t.Context(), ref(t, "a/all:1@arm64")); err != nil || img.Size != int64(len("image for arm64")) {
		t.Errorf("the other architecture: %+v, %v", img, err)
	}
}

// sessions are those of a copy, which outlive a process.
type sessions struct {
	mu  sync.Mutex
	all map[string]*backendtest.Session
}

func (s *sessions) of(digest string) backends.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[digest] == nil {
		s.all[digest] = &backendtest.Session{}
	}
	return s.all[digest]
}

// A copy that was broken off goes on where it was.
func TestCopy_resume(t *testing.T) {
	t.Parallel()
	const chunk, size = 256 << 10, 6*256<<10 + 1
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	content := random(size)
	from.PushSIF("a/b", "1", content, nil)
	one := client(t, "one", config{"url": from.URL})
	img, err := one.Stat(t.Context(), ref(t, "a/b:1"))
	if err != nil {
		t.Fatal(err)
	}
	saved := &sessions{all: map[string]*backendtest.Session{}}
	copying := func() (backends.Image, error) {
		b := open(t, config{"url": to.URL})
		oci.SetChunk(b.Backend, chunk)
		two := backends.NewClient("two", b.Backend, backends.ClientOptions{MaxElapsed: time.Second})
		return two.Copy(t.Context(), one, backends.CopySource{Image: img, Session: saved.of}, ref(t, "a/b:1"))
	}
	var chunks atomic.Int64
	to.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch && chunks.Add(1) > 4 || chunks.Load() > 4 { // one is the configuration
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, req)
		})
	})
	_, err = copying()
	wantErr(t, "interrupted copy", err, backends.ErrUnavailable)
	to.Heal()
	to.Restart()
	to.Forget()
	from.Forget()
	got, err := copying()
	if err != nil {
		t.Fatal(err)
	}
	if n := patched(to); n > size-3*chunk+2 {
		t.Errorf("%d bytes uploaded the second time, want %d", n, size-3*chunk)
	}
	if n := from.BlobBytes(); n > size-3*chunk+2 {
		t.Errorf("%d bytes read the second time, want %d", n, size-3*chunk)
	}
	if text := read(t, open(t, config{"url": to.URL}), got, 0, -1); !bytes.Equal(text, content) {
		t.Error("other bytes came back")
	}
	for digest, s := range saved.all {
		if len(s.Load()) != 0 {
			t.Errorf("state of %s after the copy: %s", digest, s.Load())
		}
	}
}

// A source that breaks off for a moment is asked for the rest. If it stays away, that is its
// error, and the name means nothing.
func TestCopy_sourceBreaks(t *testing.T) {
	t.Parallel()
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	content := random(1 << 20)
	from.PushSIF("a/b", "1", content, nil)
	one, two := client(t, "one", config{"url": from.URL}), client(t, "two", config{"url": to.URL})
	img, err := one.Stat(t.Context(), ref(t, "a/b:1"))
	if err != nil {
		t.Fatal(err)
	}
	breaking := func(answers int64) ocitest.Middleware {
		var given atomic.Int64
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, img.Digest) {
					if n := given.Add(1); answers > 0 && n > answers {
						panic(http.ErrAbortHandler)
					} else if n == 1 {
						w = &broken{ResponseWriter: w, left: 300 << 10}
					}
				}
				next.ServeHTTP(w, req)
			})
		}
	}
	from.Use(breaking(1))
	_, err = two.Copy(t.Context(), one, backends.CopySource{Image: img}, ref(t, "a/b:1"))
	wantErr(t, "copy from a registry that went away", err, backends.ErrUnavailable)
	if e, ok := errors.AsType[*backends.Error](err); !ok || e.Remote != "one" {
		t.Errorf("the error is %v, which is not that of the registry that went away", err)
	}
	if _, err := two.Stat(t.Context(), ref(t, "a/b:1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the name means something already: %v", err)
	}
	from.Heal()
	from.Use(breaking(0))
	from.Forget()
	got := mustCopy(t, one, two, "a/b:1", "a/b:1", false)
	if n := from.BlobBytes(); n > int64(len(content))+64<<10 {
		t.Errorf("%d bytes were read of %d", n, len(content))
	}
	if text := read(t, open(t, config{"url": to.URL}), got, 0, -1); !bytes.Equal(text, content) {
		t.Error("other bytes came back")
	}
}

// A broken answer ends after so many bytes.
type broken struct {
	http.ResponseWriter
	left int
}

func (c *broken) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// A source that sends other bytes than it says gives nothing a name.
func TestCopy_corrupt(t *testing.T) {
	t.Parallel()
	from, to := ocitest.Start(t, ocitest.Options{}), ocitest.Start(t, ocitest.Options{})
	from.PushSIF("a/b", "1", random(300<<10), nil)
	one, two := client(t, "one", config{"url": from.URL}), client(t, "two", config{"url": to.URL})
	img, err := one.Stat(t.Context(), ref(t, "a/b:1"))
	if err != nil {
		t.Fatal(err)
	}
	from.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, img.Digest) {
				http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(make([]byte, 300<<10)))
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	_, err = two.Copy(t.Context(), one, backends.CopySource{Image: img}, ref(t, "a/b:1"))
	if !errors.Is(err, backends.ErrCorrupt) && !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("copy of other bytes: %v", err)
	}
	if _, err := two.Stat(t.Context(), ref(t, "a/b:1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the name means something: %v", err)
	}
}
