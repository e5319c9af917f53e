// SPDX-License-Identifier: Apache-2.0

package backendtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite runs against the smallest service that can do all it asks for: it
// keeps files by name, with an ETag. docs/adding-a-backend.md builds the reading
// half of its backend, plain_read_test.go.
func TestPlain(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanPush | backends.CanDelete, KeepsFormat: true,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			srv := httptest.NewServer(newFake(seed))
			t.Cleanup(srv.Close)
			return backendtest.Open(t, Open, hc, map[string]any{"url": srv.URL})
		},
	})
}

// A fake is the service: GET, HEAD, PUT, DELETE of /image/NAME, GET of
// /list/COLLECTION.
type fake struct {
	mu     sync.Mutex // guards the field below
	images map[string]stored
}

type stored struct {
	text     []byte
	format   string
	modified time.Time
}

func newFake(seed backendtest.Seed) *fake {
	s := &fake{images: map[string]stored{}}
	for _, img := range seed.Images {
		s.images[img.Ref.String()] = stored{img.Content, img.Format, img.Modified}
	}
	return s
}

func etag(text []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(text)) }

func (s *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if collection, ok := strings.CutPrefix(r.URL.Path, "/list/"); ok {
		s.list(w, collection)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/image/")
	text, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.images[name]
	match, noneMatch := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	if match != "" && (!exists && r.Method != http.MethodDelete || exists && match != etag(old.text)) || noneMatch == "*" && exists {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	switch {
	case r.Method == http.MethodPut:
		s.images[name] = stored{text, r.Header.Get("Image-Format"), time.Now()}
	case !exists:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.images, name)
	default:
		w.Header().Set("ETag", etag(old.text))
		w.Header().Set("Image-Format", old.format)
		http.ServeContent(w, r, "", old.modified, bytes.NewReader(old.text))
	}
}

func (s *fake) list(w http.ResponseWriter, collection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := []file{}
	found := collection == ""
	seen := map[string]bool{}
	folder := func(name string) {
		if !seen[name] {
			seen[name] = true
			files = append(files, file{Name: name + "/"})
		}
	}
	for name, img := range s.images {
		ref, err := backends.ParseRef(name)
		if err != nil {
			panic(err)
		}
		switch {
		case ref.Collection == collection:
			files, found = append(files, file{name, img.format}), true
		case collection == "":
			first, _, _ := strings.Cut(ref.Collection, "/")
			folder(first)
		case strings.HasPrefix(ref.Collection, collection+"/"):
			first, _, _ := strings.Cut(ref.Collection[len(collection)+1:], "/")
			folder(collection + "/" + first)
			found = true
		}
	}
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(files)
}
