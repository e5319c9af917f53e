// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A registry answers as an OCI registry does to who needs no login, and
// as a plain web server below /files/, where each image is a file. All that it
// sends goes over its link and is counted. Blobs are sent by the kernel from
// files that are in its page cache, at some GB/s.
type registry struct {
	link link
	url  string // "http://127.0.0.1:PORT"
	cdn  string // of the place that blobs can be redirected to

	// signed is how long an address that a blob is redirected to works, in
	// nanoseconds; 0 is no redirect.
	signed atomic.Int64

	servers []*http.Server
	serving errgroup.Group

	mu      sync.Mutex        // guards the fields below
	images  map[string]*image // by repository and tag, "bench/cold:1"
	blobs   map[string]*image // by digest
	idle    map[net.Conn]bool
	uploads map[string]*incoming
	log     []*request // in the order of their coming
}

type connKey struct{}

func (r *registry) connState(c net.Conn, state http.ConnState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if state == http.StateIdle {
		r.idle[c] = true
	} else {
		delete(r.idle, c)
	}
}

// hangUp closes the connections on which nothing is going on, and gives their
// clients a moment to notice.
func (r *registry) hangUp() {
	r.mu.Lock()
	for c := range r.idle {
		_ = c.Close() // its client may have done so already
	}
	r.mu.Unlock()
	time.Sleep(50 * time.Millisecond)
}

// openRegistry starts a registry without images; close ends it.
func openRegistry() (*registry, error) {
	r := &registry{images: map[string]*image{}, blobs: map[string]*image{}, idle: map[net.Conn]bool{}, uploads: map[string]*incoming{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", r.api)
	mux.HandleFunc("/files/", r.file)
	front, err := r.serve(mux)
	if err != nil {
		return nil, err
	}
	behind, err := r.serve(http.HandlerFunc(r.presigned))
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.url, r.cdn = "http://"+front, "http://"+behind
	return r, nil
}

func (r *registry) serve(h http.Handler) (addr string, err error) {
	listener, err := r.link.listen()
	if err != nil {
		return "", err
	}
	server := &http.Server{
		Handler:           r.logged(h),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         r.connState,
		ReadHeaderTimeout: time.Minute,
	}
	r.servers = append(r.servers, server)
	r.serving.Go(func() error { return server.Serve(listener) })
	return listener.Addr().String(), nil
}

func (r *registry) close() error {
	var all []error
	for _, s := range r.servers {
		all = append(all, s.Close())
	}
	if err := r.serving.Wait(); !errors.Is(err, http.ErrServerClosed) {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// add makes img known under its repository and tag.
func (r *registry) add(img *image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[img.repo+":"+img.tag] = img
	r.blobs[img.digest] = img
}

// all returns the images, in the order of their names.
func (r *registry) all() []*image {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*image
	for _, img := range r.images {
		all = append(all, img)
	}
	slices.SortFunc(all, func(a, b *image) int { return cmp.Compare(a.repo+":"+a.tag, b.repo+":"+b.tag) })
	return all
}

// api answers what the distribution specification, version 1.1, calls pull and
// content discovery; push is in registry_push.go.
func (r *registry) api(w http.ResponseWriter, req *http.Request) {
	rest := strings.TrimPrefix(req.URL.Path, "/v2/")
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	repo, last := cutLast(rest, "/")
	repo, kind := cutLast(repo, "/")
	switch {
	case rest == "":
		answer(w, map[string]any{})
	case rest == "_catalog":
		answer(w, map[string]any{"repositories": r.repositories()})
	case kind == "tags" && last == "list":
		answer(w, map[string]any{"name": repo, "tags": r.tags(repo)})
	case !reads:
		r.push(w, req)
	case kind == "manifests":
		r.manifest(w, repo, last)
	case kind == "blobs":
		r.blob(w, req, last)
	default:
		http.NotFound(w, req)
	}
}

// cutLast returns what stands before and after the last sep.
func cutLast(s, sep string) (before, after string) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+len(sep):]
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked may have gone
}

func (r *registry) repositories() []string {
	var all []string
	for _, img := range r.all() {
		all = append(all, img.repo)
	}
	return slices.Compact(all)
}

func (r *registry) tags(repo string) []string {
	all := []string{}
	for _, img := range r.all() {
		if img.repo == repo {
			all = append(all, img.tag)
		}
	}
	return all
}

func (r *registry) manifest(w http.ResponseWriter, repo, reference string) {
	for _, img := range r.all() {
		if img.repo == repo && (img.tag == reference || img.version == reference) {
			w.Header().Set("Content-Type", manifestType)
			w.Header().Set("Docker-Content-Digest", img.version)
			w.Header().Set("Content-Length", strconv.Itoa(len(img.manifest)))
			_, _ = w.Write(img.manifest)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

func (r *registry) blob(w http.ResponseWriter, req *http.Request, digest string) {
	r.mu.Lock()
	img := r.blobs[digest]
	r.mu.Unlock()
	life := time.Duration(r.signed.Load())
	switch {
	case img == nil:
		w.WriteHeader(http.StatusNotFound)
	case img.path == "": // pushed, and not kept
		w.Header().Set("Content-Length", strconv.FormatInt(img.size, 10))
	case life > 0:
		until := time.Now().Add(life).UnixNano()
		http.Redirect(w, req, fmt.Sprintf("%s/%s?until=%d", r.cdn, digest, until), http.StatusTemporaryRedirect)
	default:
		img.serve(w, req)
	}
}

// presigned serves the blobs that were redirected, as long as their address
// works.
func (r *registry) presigned(w http.ResponseWriter, req *http.Request) {
	until, err := strconv.ParseInt(req.URL.Query().Get("until"), 10, 64)
	r.mu.Lock()
	img := r.blobs[strings.TrimPrefix(req.URL.Path, "/")]
	r.mu.Unlock()
	switch {
	case err != nil || img == nil:
		http.NotFound(w, req)
	case time.Now().UnixNano() > until:
		w.WriteHeader(http.StatusForbidden)
	default:
		img.serve(w, req)
	}
}

// file is what rclone's http backend reads: pages of links, and files.
func (r *registry) file(w http.ResponseWriter, req *http.Request) {
	name := strings.TrimPrefix(req.URL.Path, "/files/")
	entries := map[string]bool{}
	for _, img := range r.all() {
		full := img.inFiles()
		if full == name {
			img.serve(w, req)
			return
		}
		if rest, ok := strings.CutPrefix(full, name); ok && (name == "" || strings.HasSuffix(name, "/")) {
			first, _, deeper := strings.Cut(rest, "/")
			if deeper {
				first += "/"
			}
			entries[first] = true
		}
	}
	if len(entries) == 0 {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	for entry := range entries {
		fmt.Fprintf(w, "<a href=%q>%s</a>\n", entry, entry)
	}
}

// serve sends the image, or the range of it that is asked for.
func (m *image) serve(w http.ResponseWriter, req *http.Request) {
	f, err := os.Open(m.path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", m.digest)
	w.Header().Set("Etag", strconv.Quote(m.digest))
	http.ServeContent(w, req, "", published, f)
}
