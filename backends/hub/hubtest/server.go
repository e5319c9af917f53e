// SPDX-License-Identifier: Apache-2.0

// Package hubtest is the archive of Singularity Hub for tests: its data set as
// files behind an HTTP server, the index in it, and the service that answers for
// one image at a time. It shares no code with backends/hub.
//
// service.go does what _service_/serve.py of con/shub does, given images.json;
// index.go writes images.json as _tools_/process_dump.py does. The two listen on
// two ports and so are two origins.
package hubtest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ArchiveURL is where the real service says that images are.
const ArchiveURL = "https://datasets.datalad.org/shub"

// Options say what is there. The zero value is the whole archive.
type Options struct {
	NoIndex bool   // the data set has no _data_/images.json
	TopURL  string // what the service puts before the file of an image; "" is ArchiveURL
}

// A Server is the archive. Its methods may be called from many goroutines at once.
type Server struct {
	URL     string // of the service, without "/api"
	DataURL string // of the data set

	opts Options

	mu     sync.Mutex // guards the fields below
	images []Image
	index  []byte // if not nil, in the place of the one made of images
	fault  http.Handler
	seen   []string
}

// Start starts an archive of these images that ends with the test.
func Start(tb testing.TB, opts Options, images ...Image) *Server {
	tb.Helper()
	s := &Server{opts: opts}
	if s.opts.TopURL == "" {
		s.opts.TopURL = ArchiveURL
	}
	service := httptest.NewServer(s.logged(http.HandlerFunc(s.serve)))
	data := httptest.NewServer(s.logged(http.HandlerFunc(s.serveData)))
	tb.Cleanup(service.Close)
	tb.Cleanup(data.Close)
	s.URL, s.DataURL = service.URL, data.URL+"/shub"
	s.Add(images...)
	return s
}

// Config is the [remotes.NAME] table of a remote for this archive.
func (s *Server) Config() map[string]any {
	return map[string]any{"url": s.URL, "data": s.DataURL}
}

// Add puts images into the archive, as nobody can any more.
func (s *Server) Add(images ...Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, img := range images {
		s.images = append(s.images, img.completed(len(s.images)+1))
	}
}

// SetIndex puts text in the place of images.json.
func (s *Server) SetIndex(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = text
}

// Break lets h answer everything; nil ends that.
func (s *Server) Break(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = h
}

// Status is for Break: an answer of that status to everything.
func Status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", code) })
}

// Requests returns what was asked since the last call: "GET /path" of both
// servers, with the range after it if there was one.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := r.Method + " " + r.URL.Path
		if part := r.Header.Get("Range"); part != "" {
			line += " " + part
		}
		s.mu.Lock()
		s.seen = append(s.seen, line)
		h := next
		if s.fault != nil {
			h = s.fault
		}
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// serveData serves the data set as a directory of files: with ranges, and an
// ETag that is none of the content's digests.
func (s *Server) serveData(w http.ResponseWriter, r *http.Request) {
	file, ok := strings.CutPrefix(r.URL.Path, "/shub/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if file == "" {
		w.Header().Set("Content-Type", "text/html")
		return
	}
	if file == "_data_/images.json" {
		if text := s.indexText(); text != nil {
			http.ServeContent(w, r, "images.json", time.Time{}, bytes.NewReader(text))
			return
		}
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.images, func(img Image) bool { return img.file() == file })
	var content []byte
	if i >= 0 {
		content = s.images[i].Content
		if s.images[i].Spoilt {
			content = bytes.Clone(content)
			content[len(content)/2] ^= 1
		}
	}
	s.mu.Unlock()
	if i < 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"5c0-59e`+strings.Repeat("0", i%7)+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (s *Server) indexText() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.opts.NoIndex:
		return nil
	case s.index != nil:
		return s.index
	}
	return Index(s.images)
}
