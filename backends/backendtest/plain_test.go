// SPDX-License-Identifier: Apache-2.0

package backendtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite runs against the smallest service that can do all it asks for: it
// keeps files by name, with an ETag. docs/adding-a-backend.md has its reading half.
func TestPlain(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Harness{
		Caps: backends.CanList | backends.CanPush | backends.CanDelete,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			srv := httptest.NewServer(newService(seed))
			t.Cleanup(srv.Close)
			return backendtest.Open(t, openPlain, hc, map[string]any{"url": srv.URL})
		},
	})
}

// service is the fake: GET, HEAD, PUT, DELETE of /image/NAME, GET of /list/COLLECTION.
type service struct {
	mu     sync.Mutex // guards the field below
	images map[string]stored
}

type stored struct {
	text     []byte
	modified time.Time
}

func newService(seed backendtest.Seed) *service {
	s := &service{images: map[string]stored{}}
	for _, img := range seed.Images {
		s.images[img.Ref.String()] = stored{img.Content, img.Modified}
	}
	return s
}

func etag(text []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(text)) }

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
		s.images[name] = stored{text, time.Now()}
	case !exists:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.images, name)
	default:
		w.Header().Set("ETag", etag(old.text))
		http.ServeContent(w, r, "", old.modified, bytes.NewReader(old.text))
	}
}

func (s *service) list(w http.ResponseWriter, collection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	found := collection == ""
	for name := range s.images {
		ref, err := backends.ParseRef(name)
		if err != nil {
			panic(err)
		}
		switch {
		case ref.Collection == collection:
			names, found = append(names, name), true
		case collection == "":
			first, _, _ := strings.Cut(ref.Collection, "/")
			names = append(names, first+"/")
		case strings.HasPrefix(ref.Collection, collection+"/"):
			first, _, _ := strings.Cut(ref.Collection[len(collection)+1:], "/")
			names, found = append(names, collection+"/"+first+"/"), true
		}
	}
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(names)
}

var (
	_ backends.Backend = (*client)(nil)
	_ backends.Lister  = (*client)(nil)
	_ backends.Pusher  = (*client)(nil)
	_ backends.Deleter = (*client)(nil)
)

type client struct {
	url  string
	http *http.Client
}

func openPlain(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg struct {
		URL string `toml:"url"`
	}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	return &client{url: cfg.URL, http: env.HTTP}, nil
}

func (c *client) do(ctx context.Context, method, path string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return httpx.Do(c.http, req)
}

func path(ref backends.Ref) string {
	ref.Version = ""
	return "/image/" + (&url.URL{Path: ref.String()}).EscapedPath()
}

func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	resp, err := c.do(ctx, http.MethodHead, path(ref), nil)
	if err != nil {
		return backends.Image{}, err
	}
	resp.Body.Close()
	version, size := resp.Header.Get("ETag"), resp.ContentLength
	if version == "" || size < 0 {
		return backends.Image{}, fmt.Errorf("%w: an answer without ETag and length", backends.ErrCorrupt)
	}
	if ref.Version != "" && ref.Version != version {
		return backends.Image{}, fmt.Errorf("%w: version %q", fs.ErrNotExist, ref.Version)
	}
	ref.Version = ""
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	return backends.Image{Ref: ref, Size: size, Version: version, Modified: modified, Digest: "sha256:" + strings.Trim(version, `"`)}, nil
}

func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return http.NoBody, nil
	}
	want := fmt.Sprintf("bytes=%d-", off)
	if n > 0 {
		want = fmt.Sprintf("bytes=%d-%d", off, off+n-1)
	}
	resp, err := c.do(ctx, http.MethodGet, path(img.Ref), nil, "Range", want, "If-Match", img.Version)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, backends.ErrChanged
	case errors.Is(err, fs.ErrInvalid): // 416: past the end
		return http.NoBody, nil
	case err != nil:
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && off > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
			resp.Body.Close()
			return nil, backends.TransportError(err)
		}
	}
	return resp.Body, nil
}

func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		var names []string
		resp, err := c.do(ctx, http.MethodGet, "/list/"+(&url.URL{Path: collection}).EscapedPath(), nil)
		if err == nil {
			err = httpx.JSON(resp.Body, &names)
			resp.Body.Close()
		}
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		seen := map[string]bool{}
		for _, name := range names {
			entry, err := toEntry(name)
			if seen[name] {
				continue
			}
			seen[name] = true
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

func toEntry(name string) (backends.Entry, error) {
	if collection, ok := strings.CutSuffix(name, "/"); ok {
		return backends.Entry{Collection: collection}, nil
	}
	ref, err := backends.ParseRef(name)
	if err != nil {
		return backends.Entry{}, fmt.Errorf("%w: %v", backends.ErrCorrupt, err)
	}
	return backends.Entry{Image: backends.Image{Ref: ref, Size: -1}}, nil
}

func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	text, err := io.ReadAll(io.NewSectionReader(src.Content, 0, src.Size))
	if err != nil {
		return backends.Image{}, err
	}
	if "sha256:"+strings.Trim(etag(text), `"`) != src.Digest {
		return backends.Image{}, backends.ErrCorrupt
	}
	cond := []string{"If-None-Match", "*"}
	switch src.Replaces {
	case "":
	case backends.ReplaceAny:
		cond = nil
	default:
		cond = []string{"If-Match", src.Replaces}
	}
	resp, err := c.do(ctx, http.MethodPut, path(ref), bytes.NewReader(text), cond...)
	if errors.Is(err, fs.ErrExist) && src.Replaces != "" {
		return backends.Image{}, backends.ErrChanged
	}
	if err != nil {
		return backends.Image{}, err
	}
	resp.Body.Close()
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	return c.Stat(ctx, ref)
}

func (c *client) Delete(ctx context.Context, img backends.Image) error {
	resp, err := c.do(ctx, http.MethodDelete, path(img.Ref), nil, "If-Match", img.Version)
	if errors.Is(err, fs.ErrExist) {
		return backends.ErrChanged
	}
	if err == nil {
		resp.Body.Close()
	}
	return err
}
