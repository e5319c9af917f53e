// SPDX-License-Identifier: Apache-2.0

package fsystest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A Service stores files by path over HTTP, as small as a registry can be.
type Service struct {
	URL string

	Stats  atomic.Int64 // answered HEAD requests
	Bytes  atomic.Int64 // bytes of images sent
	Opens  atomic.Int64 // answered GET requests for images
	Pushes atomic.Int64

	// Fault, if set, is asked before each request; what it answers (true) is the
	// answer.
	Fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]

	mu    sync.Mutex // guards files
	files map[string]file
}

type file struct {
	content  []byte
	modified time.Time
}

func newService(t testing.TB) *Service {
	s := &Service{files: make(map[string]file)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Put stores an image: name is "collection/image:tag".
func (s *Service) Put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = file{content, time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)}
}

// Get returns an image's content, nil if there is none.
func (s *Service) Get(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name].content
}

// Remove drops an image.
func (s *Service) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, name)
}

// Fail makes all requests of that method fail with the status; 0 ends that.
func (s *Service) Fail(method string, status int) {
	if status == 0 {
		s.Fault.Store(nil)
		return
	}
	fault := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			w.WriteHeader(status)
		}
		return r.Method == method
	}
	s.Fault.Store(&fault)
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fault := s.Fault.Load(); fault != nil && (*fault)(w, r) {
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if r.URL.Query().Has("list") {
		s.list(w)
		return
	}
	if r.Method == http.MethodPut {
		s.put(w, r, name)
		return
	}
	s.mu.Lock()
	f, ok := s.files[name]
	if ok && r.Method == http.MethodDelete {
		delete(s.files, name)
	}
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+digest(f.content)+`"`)
	switch r.Method {
	case http.MethodHead:
		s.Stats.Add(1)
	case http.MethodGet:
		s.Opens.Add(1)
		w = &counting{w, &s.Bytes}
	}
	http.ServeContent(w, r, "", f.modified, bytes.NewReader(f.content))
}

func (s *Service) list(w http.ResponseWriter) {
	s.mu.Lock()
	names := make([]string, 0, len(s.files))
	for name := range s.files {
		names = append(names, name)
	}
	s.mu.Unlock()
	slices.Sort(names)
	_ = json.NewEncoder(w).Encode(names)
}

func (s *Service) put(w http.ResponseWriter, r *http.Request, name string) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.files[name]
	if match := r.Header.Get("If-Match"); match != "*" && (exists != (match != "") || exists && match != digest(old.content)) {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	s.Pushes.Add(1)
	s.files[name] = file{content, time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)}
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// web is the backend of a Service.
type web struct {
	url  string
	http *http.Client
}

var (
	_ backends.Lister  = (*web)(nil)
	_ backends.Pusher  = (*web)(nil)
	_ backends.Deleter = (*web)(nil)
)

func (b *web) do(ctx context.Context, method string, ref backends.Ref, header http.Header, body io.Reader) (*http.Response, error) {
	u := b.url + "/" + (&url.URL{Path: ref.Repository() + ":" + ref.Tag}).EscapedPath()
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, backends.TransportError(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	resp.Body.Close()
	return nil, statusError(resp.StatusCode)
}

func statusError(status int) error {
	switch status {
	case http.StatusNotFound:
		return fs.ErrNotExist
	case http.StatusUnauthorized:
		return backends.ErrUnauthorized
	case http.StatusForbidden:
		return fs.ErrPermission
	case http.StatusTooManyRequests:
		return backends.ErrRateLimited
	case http.StatusPreconditionFailed:
		return backends.ErrChanged
	}
	return fmt.Errorf("%w: status %d", backends.ErrUnavailable, status)
}

func (b *web) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	resp, err := b.do(ctx, http.MethodHead, ref, nil, nil)
	if err != nil {
		return backends.Image{}, err
	}
	resp.Body.Close()
	version := strings.Trim(resp.Header.Get("ETag"), `"`)
	if ref.Version != "" && ref.Version != version {
		return backends.Image{}, fs.ErrNotExist
	}
	ref.Version = ""
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	return backends.Image{
		Ref: ref, Size: resp.ContentLength, Digest: version, Version: version, Modified: modified,
		Format: "sif", Labels: map[string]string{"maintainer": "vsoch"}, URL: b.url + "/" + ref.Repository(),
	}, nil
}

func (b *web) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return io.NopCloser(strings.NewReader("")), nil
	}
	rng := fmt.Sprintf("bytes=%d-", off)
	if n > 0 {
		rng += strconv.FormatInt(off+n-1, 10)
	}
	resp, err := b.do(ctx, http.MethodGet, img.Ref, http.Header{"Range": {rng}, "If-Match": {`"` + img.Version + `"`}}, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (b *web) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		names, err := b.names(ctx)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		prefix := collection + "/"
		if collection == "" {
			prefix = ""
		}
		seen := map[string]bool{}
		for _, name := range names {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			var e backends.Entry
			if child, _, deeper := strings.Cut(rest, "/"); deeper {
				e.Collection = prefix + child
			} else {
				image, tag, _ := strings.Cut(rest, ":")
				e.Image = backends.Image{Ref: backends.Ref{Collection: collection, Name: image, Tag: tag}, Size: -1, Format: "sif"}
			}
			if e.Collection != "" && seen[e.Collection] {
				continue
			}
			seen[e.Collection] = true
			if !yield(e, nil) {
				return
			}
		}
		if len(seen) == 0 && collection != "" {
			yield(backends.Entry{}, fs.ErrNotExist)
		}
	}
}

func (b *web) names(ctx context.Context) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/?list", nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, backends.TransportError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	var names []string
	return names, json.NewDecoder(resp.Body).Decode(&names)
}

func (b *web) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	header := http.Header{}
	if src.Replaces != "" {
		header.Set("If-Match", src.Replaces)
	}
	resp, err := b.do(ctx, http.MethodPut, ref, header, io.NewSectionReader(src.Content, 0, src.Size))
	if errors.Is(err, backends.ErrChanged) && src.Replaces == "" {
		err = fs.ErrExist
	}
	if err != nil {
		return backends.Image{}, err
	}
	resp.Body.Close()
	return b.Stat(ctx, ref)
}

func (b *web) Delete(ctx context.Context, img backends.Image) error {
	switch now, err := b.Stat(ctx, backends.Ref{Collection: img.Ref.Collection, Name: img.Ref.Name, Tag: img.Ref.Tag}); {
	case err != nil:
		return err
	case now.Version != img.Version:
		return backends.ErrChanged
	}
	resp, err := b.do(ctx, http.MethodDelete, img.Ref, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
