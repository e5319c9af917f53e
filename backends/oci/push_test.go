// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func random(n int) []byte {
	content := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(content)
	return content
}

// on applies m to requests of the method whose path contains part, while n lasts.
func on(method, part string, n int64, m ocitest.Middleware) ocitest.Middleware {
	var used atomic.Int64
	return func(next http.Handler) http.Handler {
		faulty := m(next)
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == method && strings.Contains(req.URL.Path, part) && used.Add(1) <= n {
				faulty.ServeHTTP(w, req)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

func status(code int, header ...string) ocitest.Middleware {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(code)
		})
	}
}

// lostAnswer lets the registry do it and then breaks the connection.
func lostAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		next.ServeHTTP(discard{http.Header{}}, req)
		panic(http.ErrAbortHandler)
	})
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header       { return d.h }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// cut breaks the connection after n bytes of the request's body.
func cut(n int64) ocitest.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			req.Body = io.NopCloser(io.MultiReader(io.LimitReader(req.Body, n), brokenReader{}))
			next.ServeHTTP(discard{http.Header{}}, req)
			panic(http.ErrAbortHandler)
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection cut") }

// patched returns how many bytes of blobs were uploaded.
func patched(reg *ocitest.Registry) (n int64) {
	for _, req := range reg.Requests() {
		if req.Method == http.MethodPatch || req.Method == http.MethodPut && strings.Contains(req.Path, "/blobs/") {
			n += req.In
		}
	}
	return n
}

func mustPush(t *testing.T, b remote, name string, src backends.Source) backends.Image {
	t.Helper()
	img, err := b.Push(t.Context(), ref(t, name), src)
	if err != nil {
		t.Fatalf("Push(%s): %v", name, err)
	}
	return img
}

// The form is that of internal/pkg/client/oras/image.go in Apptainer's source,
// the order of the fields that of go-containerregistry, which writes them there.
func TestPush_manifest(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	sif := make([]byte, 4096)
	copy(sif, "#!/usr/bin/env run-singularity\n")
	copy(sif[32:], "SIF_MAGIC\x0001\x0002\x00")
	binary.LittleEndian.PutUint64(sif[64:], 1703001734) // 2023-12-19T16:02:14Z
	for _, tt := range []struct {
		name    string
		content []byte
		tail    string
	}{
		{"a/hello:2.0", sif, `,"annotations":{"org.opencontainers.image.created":"2023-12-19T16:02:14Z"}}`},
		{"a/raw:1", []byte("no SIF"), "}"},
	} {
		img := mustPush(t, b, tt.name, source(tt.content))
		title := strings.NewReplacer("a/", "", ":", "_").Replace(tt.name) + ".sif"
		want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
			`"config":{"mediaType":"application/vnd.sylabs.sif.config.v1+json","size":2,` +
			`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","data":"e30="},` +
			fmt.Sprintf(`"layers":[{"mediaType":"application/vnd.sylabs.sif.layer.v1.sif","size":%d,"digest":"%s",`, len(tt.content), ocitest.Digest(tt.content)) +
			`"annotations":{"org.opencontainers.image.title":"` + title + `"}}]` + tt.tail
		repo, tag, _ := strings.Cut(tt.name, ":")
		got, _ := reg.Manifest(repo, tag)
		if string(got) != want {
			t.Errorf("manifest of %s:\ngot  %s\nwant %s", tt.name, got, want)
		}
		if img.Version != ocitest.Digest(got) {
			t.Errorf("version %s, want the manifest's digest", img.Version)
		}
		if fresh := mustStat(t, open(t, config{"url": reg.URL}), tt.name); fresh.Version != img.Version || !fresh.Modified.Equal(img.Modified) {
			t.Errorf("Stat = %+v, Push gave %+v", fresh, img)
		}
	}
}

func TestPush_blobIsThere(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	content := random(50_000)
	mustPush(t, b, "a/b:1", source(content))
	reg.Forget()
	src, last := source(content), int64(0)
	src.Progress = func(n int64) { last = n }
	mustPush(t, b, "a/b:2", src)
	if n := patched(reg); n != 0 {
		t.Errorf("%d bytes uploaded for a second tag, want 0", n)
	}
	if last != src.Size {
		t.Errorf("progress ended at %d of %d", last, src.Size)
	}
}

func TestPush_brokenChunk(t *testing.T) {
	t.Parallel()
	const chunk, size = 256 << 10, 5*256<<10 + 17
	content := random(size)
	type fault = func() ocitest.Middleware
	chunks := func(n int64, m ocitest.Middleware) fault {
		return func() ocitest.Middleware { return on(http.MethodPatch, "/uploads/", n, m) }
	}
	for name, fault := range map[string]fault{
		"cut":       chunks(1, cut(100_000)),
		"cut later": func() ocitest.Middleware { return after(3, chunks(1, cut(100_000))()) },
		"lost":      chunks(2, lostAnswer),
		"refused":   chunks(1, status(http.StatusServiceUnavailable)),
		"elsewhere": chunks(1, status(http.StatusRequestedRangeNotSatisfiable)),
		"closing":   func() ocitest.Middleware { return on(http.MethodPut, "/uploads/", 1, lostAnswer) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, resumes := range []bool{false, true} {
				reg := ocitest.Start(t, ocitest.Options{})
				limit := int64(2*size + chunk)
				if resumes {
					reg.Use(resumable(reg))
					limit = size + 2*chunk
				}
				reg.Use(fault())
				b := open(t, config{"url": reg.URL})
				oci.SetChunk(b.Backend, chunk)
				img := mustPush(t, b, "fresh/b:1", source(content))
				if got := read(t, b, img, 0, -1); !bytes.Equal(got, content) {
					t.Error("other bytes came back")
				}
				if n := patched(reg); n > limit {
					t.Errorf("%d bytes uploaded for %d, with a registry that resumes: %v", n, size, resumes)
				}
			}
		})
	}
}

// after leaves the first n chunks alone.
func after(n int64, m ocitest.Middleware) ocitest.Middleware {
	var seen atomic.Int64
	return func(next http.Handler) http.Handler {
		faulty := m(next)
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch && seen.Add(1) > n {
				faulty.ServeHTTP(w, req)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

// resumable takes uploads as distribution-spec 1.1 says and as docker-registry
// does since 3.0: what has arrived of a broken chunk is kept, and a GET tells
// how much that is. docker-registry 2.8 answers that GET with 404 and cancels
// the upload (distribution/distribution#3755).
func resumable(reg *ocitest.Registry) ocitest.Middleware {
	var mu sync.Mutex
	uploads := map[string]*bytes.Buffer{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			repo, id, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/uploads/")
			if !ok {
				next.ServeHTTP(w, req)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if req.Method == http.MethodPost {
				id = fmt.Sprint(len(uploads))
				uploads[id] = new(bytes.Buffer)
			}
			have := uploads[id]
			w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id)
			code := map[string]int{"POST": 202, "PATCH": 202, "GET": 204, "PUT": 201}[req.Method]
			if from, _, ok := strings.Cut(req.Header.Get("Content-Range"), "-"); ok && from != fmt.Sprint(have.Len()) {
				code = http.StatusRequestedRangeNotSatisfiable
			} else if _, err := io.Copy(have, req.Body); err != nil {
				code = http.StatusBadGateway
			}
			if code == http.StatusCreated {
				reg.PutBlob(repo, have.Bytes())
			}
			w.Header().Set("Range", fmt.Sprintf("0-%d", max(have.Len()-1, 0)))
			w.WriteHeader(code)
		})
	}
}

func TestPush_resume(t *testing.T) {
	t.Parallel()
	const chunk, size = 256 << 10, 6*256<<10 + 1
	content := random(size)
	// interrupted begins a push that dies in the fourth chunk.
	interrupted := func(t *testing.T) (*ocitest.Registry, *backendtest.Session) {
		reg := ocitest.Start(t, ocitest.Options{})
		var chunks atomic.Int64
		reg.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodPatch && chunks.Add(1) > 3 || chunks.Load() > 3 {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, req)
			})
		})
		b := open(t, config{"url": reg.URL})
		oci.SetChunk(b.Backend, chunk)
		src, saved := source(content), &backendtest.Session{}
		src.Session = saved
		_, err := b.Push(t.Context(), ref(t, "a/b:1"), src)
		wantErr(t, "interrupted push", err, backends.ErrUnavailable)
		if len(saved.Load()) == 0 {
			t.Fatal("nothing was saved")
		}
		reg.Heal()
		reg.Forget()
		return reg, saved
	}
	again := func(t *testing.T, reg *ocitest.Registry, saved *backendtest.Session) int64 {
		b := open(t, config{"url": reg.URL})
		oci.SetChunk(b.Backend, chunk)
		src := source(content)
		src.Session = saved
		img := mustPush(t, b, "a/b:1", src)
		if got := read(t, b, img, 0, -1); !bytes.Equal(got, content) {
			t.Error("other bytes came back")
		}
		if state := saved.Load(); len(state) != 0 {
			t.Errorf("state after the push: %s", state)
		}
		return patched(reg)
	}
	t.Run("goes on", func(t *testing.T) {
		t.Parallel()
		reg, saved := interrupted(t)
		reg.Restart()
		if n := again(t, reg, saved); n > size-3*chunk+2 {
			t.Errorf("%d bytes uploaded the second time, want %d", n, size-3*chunk)
		}
	})
	t.Run("lost in the registry", func(t *testing.T) {
		t.Parallel()
		reg, saved := interrupted(t)
		uploads, _ := filepath.Glob(filepath.Join(reg.Storage(), "docker/registry/v2/repositories/a/b/_uploads/*"))
		if len(uploads) == 0 {
			t.Fatal("no upload in the storage")
		}
		for _, dir := range uploads {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		if n := again(t, reg, saved); n < size {
			t.Errorf("%d bytes uploaded the second time, want all", n)
		}
	})
	t.Run("damaged in the registry", func(t *testing.T) {
		t.Parallel()
		reg, saved := interrupted(t)
		data, _ := filepath.Glob(filepath.Join(reg.Storage(), "docker/registry/v2/repositories/a/b/_uploads/*/data"))
		if len(data) != 1 {
			t.Fatalf("uploads in the storage: %q", data)
		}
		// The states of the hash are kept beside it: without them the
		// registry hashes the file again.
		if err := os.RemoveAll(filepath.Join(filepath.Dir(data[0]), "hashstates")); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(data[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("rot"), 1000); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if n := again(t, reg, saved); n < size {
			t.Errorf("%d bytes uploaded the second time, want all", n)
		}
	})
	t.Run("without a session", func(t *testing.T) {
		t.Parallel()
		reg := ocitest.Start(t, ocitest.Options{})
		b := open(t, config{"url": reg.URL})
		oci.SetChunk(b.Backend, chunk)
		reg.Use(on(http.MethodPatch, "/uploads/", 100, cut(chunk/2)))
		_, err := b.Push(t.Context(), ref(t, "a/b:1"), source(content))
		wantErr(t, "interrupted push", err, backends.ErrUnavailable)
		before := patched(reg)
		reg.Heal()
		mustPush(t, b, "a/b:1", source(content))
		if n := patched(reg); n > size+size/2 {
			t.Errorf("%d and then %d bytes uploaded: the second try began anew", before, n)
		}
	})
}

func TestPush_registryDialects(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := random(9 << 20)
	t.Run("no chunks", func(t *testing.T) {
		reg.Use(on(http.MethodPatch, "", 100, status(http.StatusMethodNotAllowed)))
		defer reg.Heal()
		b := open(t, config{"url": reg.URL})
		if got := read(t, b, mustPush(t, b, "a/one:1", source(content)), 0, -1); !bytes.Equal(got, content) {
			t.Error("other bytes came back")
		}
	})
	t.Run("smaller chunks", func(t *testing.T) {
		reg.Forget()
		reg.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.ContentLength > 5<<20 {
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return
				}
				next.ServeHTTP(w, req)
			})
		})
		defer reg.Heal()
		b := open(t, config{"url": reg.URL})
		if got := read(t, b, mustPush(t, b, "a/two:1", source(content)), 0, -1); !bytes.Equal(got, content) {
			t.Error("other bytes came back")
		}
	})
	t.Run("larger chunks", func(t *testing.T) {
		reg.Forget()
		reg.Use(on(http.MethodPost, "/uploads/", 1, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("OCI-Chunk-Min-Length", "5000000")
				next.ServeHTTP(w, req)
			})
		}))
		defer reg.Heal()
		b := open(t, config{"url": reg.URL})
		oci.SetChunk(b.Backend, 1<<20)
		mustPush(t, b, "a/three:1", source(content))
		if n := reg.Count(http.MethodPatch, "/uploads/"); n != 2 {
			t.Errorf("%d chunks, want 2", n)
		}
	})
	t.Run("chunk size refused for ever", func(t *testing.T) {
		reg.Use(on(http.MethodPatch, "", 1000, status(http.StatusRequestEntityTooLarge)))
		defer reg.Heal()
		b := open(t, config{"url": reg.URL})
		_, err := b.Push(t.Context(), ref(t, "a/four:1"), source(content))
		wantErr(t, "Push", err, fs.ErrPermission)
	})
}

// A proxy that leaves the length out of the answer to a HEAD.
func TestPush_noLength(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.Use(on(http.MethodHead, "/blobs/", 1000, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			there := httptest.NewRecorder()
			next.ServeHTTP(there, req)
			w.Header().Set("Transfer-Encoding", "chunked")
			w.WriteHeader(there.Code)
		})
	}))
	b := open(t, config{"url": reg.URL})
	mustPush(t, b, "a/b:1", source([]byte("once")))
	mustPush(t, b, "a/b:2", source([]byte("once")))
}

func TestPush_lostAnswer(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	reg.Use(on(http.MethodPut, "/manifests/", 1, lostAnswer))
	mustPush(t, b, "a/b:1", source([]byte("once"))) // Replaces is "": a blind second try would find the tag taken
	if n := reg.Count(http.MethodPut, "/manifests/"); n != 1 {
		t.Errorf("the manifest was sent %d times", n)
	}
}

// What docker-registry 2.8 says while another client writes a link.
func TestPush_manifestRefusedOnce(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	reg.Use(on(http.MethodPut, "/manifests/", 1, status(http.StatusBadRequest)))
	mustPush(t, b, "a/b:1", source([]byte("once")))
	reg.Heal()
	reg.Use(on(http.MethodPut, "/manifests/", 9, status(http.StatusBadRequest)))
	_, err := b.Push(t.Context(), ref(t, "a/b:2"), source([]byte("twice")))
	wantErr(t, "Push", err, backends.ErrBadAnswer)
}

// A registry that loses each upload (several servers behind one name that share no
// storage) says so by 404: that is no image that is not there.
func TestPush_uploadLost(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	lost := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}`)
		})
	}
	reg.Use(on(http.MethodPut, "/blobs/uploads/", 1000, lost))
	_, err := b.Push(t.Context(), ref(t, "a/b:1"), source([]byte("content")))
	wantErr(t, "Push", err, backends.ErrUnavailable)
	if err != nil && !strings.Contains(err.Error(), "lost the upload") {
		t.Errorf("Push: %v", err)
	}
}

// The process dies after the manifest was accepted and before that was noted.
func TestPush_interruptedAtTheEnd(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	src, saved := source([]byte("once")), &backendtest.Session{}
	src.Session = saved
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reg.Use(on(http.MethodPut, "/manifests/", 1, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			next.ServeHTTP(discard{http.Header{}}, req)
			cancel()
			panic(http.ErrAbortHandler)
		})
	}))
	_, err := open(t, config{"url": reg.URL}).Push(ctx, ref(t, "a/b:1"), src)
	wantErr(t, "cancelled push", err, context.Canceled)
	if _, ok := reg.Manifest("a/b", "1"); !ok {
		t.Fatal("the manifest is not there")
	}
	b := open(t, config{"url": reg.URL})
	mustPush(t, b, "a/b:1", src)
	src.Session = nil
	_, err = b.Push(t.Context(), ref(t, "a/b:1"), src)
	wantErr(t, "push by someone else", err, fs.ErrExist)
}

func TestPush_replaces(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	putDocker(t, reg, "a/b", "docker")
	_, err := b.Push(t.Context(), ref(t, "a/b:docker"), source([]byte("sif")))
	wantErr(t, "push over a Docker image", err, fs.ErrExist)
	src := source([]byte("sif"))
	src.Replaces = backends.ReplaceAny
	mustPush(t, b, "a/b:docker", src)

	// The tag moves while the bytes travel.
	first := mustPush(t, b, "a/b:1", source([]byte("first")))
	src = source([]byte("third"))
	src.Replaces = first.Version
	reg.Use(on(http.MethodPatch, "/uploads/", 1, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			reg.PushSIF("a/b", "1", []byte("second"), nil)
			next.ServeHTTP(w, req)
		})
	}))
	_, err = b.Push(t.Context(), ref(t, "a/b:1"), src)
	wantErr(t, "push of an outdated copy", err, backends.ErrChanged)
	if got := string(read(t, b, mustStat(t, b, "a/b:1"), 0, -1)); got != "second" {
		t.Errorf("the tag means %q", got)
	}
}

// zeros is content of any size that costs no memory.
type zeros struct{ size int64 }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(z.size-off, 0)))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestPush_memory(t *testing.T) {
	const size = 96 << 20
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(zeros{size}, 0, size)); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mustPush(t, b, "a/big:1", backends.Source{Content: zeros{size}, Size: size, Digest: fmt.Sprintf("sha256:%x", sum.Sum(nil))})
	runtime.ReadMemStats(&after)
	// All that was allocated, even if freed since, the proxy's share included.
	if n := after.TotalAlloc - before.TotalAlloc; n > size/8 {
		t.Errorf("pushing %d bytes allocated %d", size, n)
	}
}
