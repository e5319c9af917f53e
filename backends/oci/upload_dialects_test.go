// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// What services make of an upload in chunks, each in its own way.
func TestPush_chunksOfServices(t *testing.T) {
	t.Parallel()
	const chunk, size = 16 << 20, 20<<20 + 17
	content := random(size)
	for name, tt := range map[string]struct {
		before ocitest.Middleware
		limit  int64 // bytes sent
	}{
		"GHCR":                     {tooLarge(4<<20, http.StatusNoContent), size + 16<<20},
		"GHCR, place not told":     {tooLarge(4<<20, http.StatusMethodNotAllowed), size + 16<<20},
		"GHCR, place not known":    {tooLarge(4<<20, http.StatusNotFound), size + 16<<20},
		"no chunk is small enough": {tooLarge(1000, http.StatusNoContent), 2*size + 6<<20},
		"ECR":                      {stuckRange(), size + 2},
		"one chunk, then 400":      {oneChunk(http.StatusBadRequest), 4 * size},
		"one chunk, then 404":      {oneChunk(http.StatusNotFound), 4 * size},
		"one chunk, then 416":      {oneChunk(http.StatusRequestedRangeNotSatisfiable), 4 * size},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{})
			reg.Use(resumable(reg))
			reg.Use(tt.before)
			b := open(t, config{"url": reg.URL})
			oci.SetChunk(b.Backend, chunk)
			img := mustPush(t, b, "me/tool:1", source(content))
			if got := read(t, b, img, 0, -1); !bytes.Equal(got, content) {
				t.Error("other bytes came back")
			}
			if n := patched(reg); n > tt.limit {
				t.Errorf("%d bytes uploaded for %d", n, size)
			}
		})
	}
}

// tooLarge refuses chunks above a limit with the status of one that is not in order,
// as GitHub does (github.com/ocx-sh/ocx/pull/237), and answers with another where it
// is asked how far the upload is, unless that is what it is always.
func tooLarge(limit int64, place int) ocitest.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			upload := strings.Contains(req.URL.Path, "/blobs/uploads/")
			switch {
			case upload && req.Method == http.MethodGet && place != http.StatusNoContent:
				w.WriteHeader(place)
			case req.Method == http.MethodPatch && req.ContentLength > limit:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				fmt.Fprintf(w, "the request body is too large and exceeds the maximum permissible limit of %d bytes", limit)
			default:
				next.ServeHTTP(w, req)
			}
		})
	}
}

// stuckRange says of each chunk where the first one ended, as ECR does
// (github.com/aws/containers-roadmap/issues/2831).
func stuckRange() ocitest.Middleware {
	first := new(atomic.Value)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch || req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/uploads/") {
				w = rangeWriter{w, first}
			}
			next.ServeHTTP(w, req)
		})
	}
}

type rangeWriter struct {
	http.ResponseWriter
	first *atomic.Value
}

func (w rangeWriter) WriteHeader(status int) {
	w.first.CompareAndSwap(nil, w.Header().Get("Range"))
	w.Header().Set("Range", w.first.Load().(string))
	w.ResponseWriter.WriteHeader(status)
}

// The second chunk never arrives, and each time the upload is lost. That must end.
func TestPush_alwaysBroken(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.Use(resumable(reg))
	reg.Use(oneChunk(http.StatusBadGateway))
	b := open(t, config{"url": reg.URL})
	oci.SetChunk(b.Backend, 1<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := b.Push(ctx, ref(t, "me/tool:1"), source(random(3<<20)))
	wantErr(t, "Push", err, backends.ErrUnavailable)
}

// oneChunk is a registry that takes a second chunk of no upload, and knows no upload
// any more then.
func oneChunk(status int) ocitest.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch later := !strings.HasPrefix(req.Header.Get("Content-Range"), "0-"); {
			case req.Method == http.MethodPatch && later:
				_, _ = io.Copy(io.Discard, req.Body)
				w.WriteHeader(status)
			case req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/uploads/"):
				w.WriteHeader(http.StatusNotFound)
			default:
				next.ServeHTTP(w, req)
			}
		})
	}
}

// GitHub's limit is known: nothing is sent in vain.
func TestPush_ghcr(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.Use(tooLarge(4<<20, http.StatusNotFound))
	b := preset(t, "ghcr", config{"url": reg.URL})
	const size = 9 << 20
	if _, err := b.(backends.Pusher).Push(t.Context(), ref(t, "me/tool:1"), source(random(size))); err != nil {
		t.Fatal(err)
	}
	if n := patched(reg); n != size+2 {
		t.Errorf("%d bytes uploaded for %d", n, size)
	}
}

// A registry that takes a byte of each chunk, and says so, is not sent chunks for
// years.
func TestPush_aByteOfEachChunk(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch {
				req.Header.Del("Content-Range")
				req.Body, req.ContentLength = io.NopCloser(io.LimitReader(req.Body, 2)), 2 // of one byte it says "0-0", as of none
				req.Header.Set("Content-Length", "2")
			}
			next.ServeHTTP(w, req)
		})
	})
	b := open(t, config{"url": reg.URL})
	oci.SetChunk(b.Backend, 64<<10)
	_, err := b.Backend.(backends.Pusher).Push(t.Context(), backendtest.Ref(t, "fresh/b:1"), source(random(300<<10)))
	if !errors.Is(err, backends.ErrUnavailable) || reg.Count(http.MethodPatch, "/uploads/") > 10 {
		t.Errorf("%v after %d chunks, want ErrUnavailable soon", err, reg.Count(http.MethodPatch, "/uploads/"))
	}
}
