// SPDX-License-Identifier: Apache-2.0

package catalog_test

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A service is a small registry over HTTP, with counters and faults. Its backend
// below is a real one; only the network is missing, so that it also works
// within a synctest bubble.
type service struct {
	mu        sync.Mutex // guards the fields below
	images    map[backends.Ref]stored
	history   map[string]stored // by version
	namesOnly bool              // listings tell no facts
	noSizes   bool              // listings tell no sizes
	noList    bool              // 501 for listings
	keeps     map[string]bool   // collections that are listed without an image, if not nil
	untold    string            // a collection that its parent's listing lacks
	rev       int
	asked     map[string]int // requests by kind
	running   map[string]int // now
	peak      map[string]int
	fault     func(kind string) int               // status to answer instead; 0: none
	slow      func(kind string)                   // called before the answer
	late      func(kind string)                   // called between the answer and its arrival
	down      bool                                // the network is
	lie       func(backends.Image) backends.Image // what a push answers
	session   string                              // what the backend remembered of the last push
}

type stored struct {
	Image   backends.Image
	Content []byte
}

func newService() *service {
	return &service{
		images: make(map[backends.Ref]stored), history: make(map[string]stored),
		asked: make(map[string]int), running: make(map[string]int), peak: make(map[string]int),
	}
}

// put stores an image as somebody else would.
func (s *service) put(ref string, content []byte) backends.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := backends.ParseRef(ref)
	if err != nil {
		panic(err)
	}
	return s.store(r, content)
}

// putPlain is put for a file without an extension.
func (s *service) putPlain(ref string, content []byte) { s.putAs(ref, content, backends.FormatPlain) }

// putAs is put for an image of which the service tells that format.
func (s *service) putAs(ref string, content []byte, format string) {
	img := s.put(ref, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	img.Format = format
	s.images[img.Ref] = stored{img, content}
}

func (s *service) store(ref backends.Ref, content []byte) backends.Image {
	s.rev++
	img := backends.Image{
		Ref: ref, Size: int64(len(content)), Digest: digest(content), Version: "rev" + strconv.Itoa(s.rev),
		Modified: time.Unix(1_700_000_000+int64(s.rev), 0).UTC(), Format: "simg",
	}
	s.images[ref] = stored{img, content}
	for at := ref.Collection; s.keeps != nil && at != ""; at, _, _ = cutLast(at) {
		s.keeps[at] = true
	}
	s.history[img.Version] = s.images[ref]
	return img
}

func (s *service) drop(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := backends.ParseRef(ref)
	delete(s.images, r)
}

func (s *service) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *service) count(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[kind]
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// RoundTrip is the network.
func (s *service) RoundTrip(req *http.Request) (*http.Response, error) {
	kind := strings.TrimPrefix(req.URL.Path, "/")
	s.mu.Lock()
	s.asked[kind]++
	if kind == "push" {
		s.session = req.URL.Query().Get("session")
	}
	s.running[kind]++
	s.peak[kind] = max(s.peak[kind], s.running[kind])
	down, slow, late, fault := s.down, s.slow, s.late, s.fault
	s.mu.Unlock()
	defer s.set(func() { s.running[kind]-- })
	if slow != nil {
		slow(kind)
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if down {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	if fault != nil {
		if status := fault(kind); status != 0 {
			w.WriteHeader(status)
			return w.Result(), nil
		}
	}
	s.serve(w, req, kind)
	if late != nil {
		late(kind)
	}
	return w.Result(), nil
}

func (s *service) serve(w http.ResponseWriter, req *http.Request, kind string) {
	q := req.URL.Query()
	ref := backends.Ref{Collection: q.Get("c"), Name: q.Get("n"), Tag: q.Get("t")}
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil { // it broke off
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.images[ref]
	if v := q.Get("v"); v != "" && kind != "push" {
		have, ok = s.history[v]
	}
	switch {
	case kind == "list" && s.noList:
		w.WriteHeader(http.StatusNotImplemented)
	case kind == "list":
		s.list(w, q.Get("c"))
	case kind == "search":
		s.search(w, q.Get("q"))
	case kind == "push":
		s.push(w, ref, q, body)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case kind == "stat":
		json.NewEncoder(w).Encode(have.Image)
	case kind == "open":
		w.Write(have.Content)
	case kind == "delete" && q.Get("replaces") != s.images[ref].Image.Version:
		w.WriteHeader(http.StatusPreconditionFailed)
	case kind == "delete":
		delete(s.images, ref)
	}
}

func (s *service) list(w http.ResponseWriter, collection string) {
	entries := []backends.Entry{}
	children := make(map[string]bool)
	prefix := collection + "/"
	if collection == "" {
		prefix = ""
	}
	for ref, have := range s.images {
		if ref.Collection == collection {
			img := have.Image
			if s.namesOnly {
				img = backends.Image{Ref: ref, Size: -1}
				if backends.IsPlain(have.Image.Format) { // that a name tells, too
					img.Format = have.Image.Format
				}
			}
			if s.noSizes {
				img.Size = -1
			}
			entries = append(entries, backends.Entry{Image: img})
		} else if strings.HasPrefix(ref.Collection, prefix) {
			first, _, _ := strings.Cut(strings.TrimPrefix(ref.Collection, prefix), "/")
			children[prefix+first] = true
		}
	}
	for at := range s.keeps {
		if in, _, _ := cutLast(at); in == collection {
			children[at] = true
		}
	}
	delete(children, s.untold)
	for child := range children {
		entries = append(entries, backends.Entry{Collection: child, Image: backends.Image{Ref: backends.Ref{Name: "x", Tag: "x"}}})
	}
	if len(entries) == 0 && collection != "" && !s.keeps[collection] {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	json.NewEncoder(w).Encode(entries)
}

func (s *service) search(w http.ResponseWriter, query string) {
	found := []backends.Image{}
	for ref, have := range s.images {
		if strings.Contains(ref.String(), query) {
			found = append(found, have.Image)
		}
	}
	json.NewEncoder(w).Encode(found)
}

func (s *service) push(w http.ResponseWriter, ref backends.Ref, q url.Values, body []byte) {
	have, exists := s.images[ref]
	src := backends.Source{Replaces: q.Get("replaces")}
	err := src.CreateAllowed()
	if exists {
		err = src.ReplaceAllowed(ref, have.Image)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		w.WriteHeader(http.StatusConflict)
	case err != nil:
		w.WriteHeader(http.StatusPreconditionFailed)
	default:
		img := s.store(ref, body)
		if s.lie != nil {
			img = s.lie(img)
		}
		json.NewEncoder(w).Encode(img)
	}
}

// remote is the backend of the service.
type remote struct{ http *http.Client }

var (
	_ backends.Lister   = remote{}
	_ backends.Pusher   = remote{}
	_ backends.Deleter  = remote{}
	_ backends.Searcher = remote{}
)

func (b remote) do(ctx context.Context, kind string, ref backends.Ref, extra url.Values, body io.Reader) (io.ReadCloser, error) {
	q := url.Values{"c": {ref.Collection}, "n": {ref.Name}, "t": {ref.Tag}, "v": {ref.Version}}
	for k, v := range extra {
		q[k] = v
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://service/"+kind+"?"+q.Encode(), body)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	resp.Body.Close()
	sentinel := map[int]error{
		http.StatusNotFound: fs.ErrNotExist, http.StatusConflict: fs.ErrExist, http.StatusPreconditionFailed: backends.ErrChanged,
		http.StatusUnauthorized: backends.ErrUnauthorized, http.StatusNotImplemented: errors.ErrUnsupported,
		http.StatusTooManyRequests: backends.ErrRateLimited, http.StatusForbidden: fs.ErrPermission,
		http.StatusBadRequest: backends.ErrBadAnswer, http.StatusUnprocessableEntity: backends.ErrCorrupt,
	}[resp.StatusCode]
	if sentinel == nil {
		sentinel = backends.ErrUnavailable
	}
	return nil, fmt.Errorf("%w: status %d", sentinel, resp.StatusCode)
}

func ask[T any](ctx context.Context, b remote, kind string, ref backends.Ref, extra url.Values, body io.Reader) (v T, err error) {
	answer, err := b.do(ctx, kind, ref, extra, body)
	if err != nil {
		return v, err
	}
	defer answer.Close()
	return v, json.NewDecoder(answer).Decode(&v)
}

func (b remote) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	return ask[backends.Image](ctx, b, "stat", ref, nil, nil)
}

func (b remote) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	ref := img.Ref
	ref.Version = img.Version
	body, err := b.do(ctx, "open", ref, nil, nil)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	content = content[min(off, int64(len(content))):]
	if n >= 0 {
		content = content[:min(n, int64(len(content)))]
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (b remote) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		entries, err := ask[[]backends.Entry](ctx, b, "list", backends.Ref{Collection: collection}, nil, nil)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		for _, e := range entries {
			if e.Collection != "" {
				e.Image = backends.Image{}
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (b remote) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		images, err := ask[[]backends.Image](ctx, b, "search", backends.Ref{}, url.Values{"q": {query}}, nil)
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		for _, img := range images {
			if !yield(img, nil) {
				return
			}
		}
	}
}

func (b remote) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	q := url.Values{"replaces": {src.Replaces}}
	if src.Session != nil {
		q.Set("session", string(src.Session.Load()))
		if err := src.Session.Save([]byte("begun")); err != nil {
			return backends.Image{}, err
		}
	}
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	img, err := ask[backends.Image](ctx, b, "push", ref, q, io.NewSectionReader(src.Content, 0, src.Size))
	if err == nil && src.Session != nil {
		err = src.Session.Save(nil)
	}
	return img, err
}

func (b remote) Delete(ctx context.Context, img backends.Image) error {
	body, err := b.do(ctx, "delete", img.Ref, url.Values{"replaces": {img.Version}}, nil)
	if err != nil {
		return err
	}
	return body.Close()
}

// client returns a client of the service. Tests of faults run in a bubble, where
// its patience costs no time.
func (s *service) client(name string) *backends.Client {
	return backends.NewClient(name, remote{&http.Client{Transport: s}}, backends.ClientOptions{})
}

func mustRef(t testing.TB, s string) backends.Ref {
	t.Helper()
	ref, err := backends.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// cutLast splits off the last part of a collection.
func cutLast(collection string) (parent, name string, ok bool) {
	i := strings.LastIndexByte(collection, '/')
	return collection[:max(i, 0)], collection[i+1:], i >= 0
}
