// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// A registry is a small HTTP service that holds images by name, counts what it
// sends and misbehaves when told to.
type registry struct {
	*httptest.Server
	requests atomic.Int64
	sent     atomic.Int64 // bytes of bodies
	maxOpen  atomic.Int64
	open     atomic.Int64
	ranges   sync.Map // "from-to" of each request that had a Range

	mu     sync.Mutex // guards the fields below
	images map[string][]byte
	faults faults
}

// faults say how a registry misbehaves. The zero value does not.
type faults struct {
	noRanges bool                                   // 200 and everything, whatever was asked
	latency  time.Duration                          // before the first byte
	hang     <-chan struct{}                        // hold every answer until it is closed
	hangIf   func(from, to int64) bool              // which of them; nil: all
	cut      int64                                  // end each body after so many bytes
	status   int                                    // of every answer
	rate     int                                    // bytes a second of each body
	mangle   func(name string, off int64, b []byte) // change what is sent
}

func newRegistry(t testing.TB) *registry {
	r := &registry{images: map[string][]byte{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *registry) set(f faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

func (r *registry) put(name string, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[name] = content
}

func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.images, name)
}

// sentInAll returns the bytes of all bodies when the last one has ended: a reader goes on
// at its byte, and the rest of the request still comes.
func (r *registry) sentInAll(t *testing.T) int64 {
	t.Helper()
	eventually(t, "end of the answers", func() bool { return r.open.Load() == 0 })
	return r.sent.Load()
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.requests.Add(1)
	n := r.open.Add(1)
	defer r.open.Add(-1)
	for old := r.maxOpen.Load(); n > old && !r.maxOpen.CompareAndSwap(old, n); old = r.maxOpen.Load() {
	}
	r.mu.Lock()
	f := r.faults
	content, ok := r.images[strings.TrimPrefix(req.URL.Path, "/")]
	r.mu.Unlock()
	from, to := int64(0), int64(len(content))
	if h := req.Header.Get("Range"); h != "" {
		r.ranges.Store(h, true)
		if !f.noRanges {
			from, to = parseRange(h, to)
		}
	}
	if f.latency > 0 {
		pause(req.Context(), f.latency)
	}
	if f.hang != nil && (f.hangIf == nil || f.hangIf(from, to)) {
		select {
		case <-f.hang:
		case <-req.Context().Done():
			return
		}
	}
	switch {
	case f.status != 0:
		w.WriteHeader(f.status)
		return
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		return
	case req.Header.Get("If-Match") != "" && req.Header.Get("If-Match") != etag(content):
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	if from > 0 || to < int64(len(content)) {
		w.WriteHeader(http.StatusPartialContent)
	}
	r.send(w, req, f, content, from, to)
}

func (r *registry) send(w http.ResponseWriter, req *http.Request, f faults, content []byte, from, to int64) {
	first := from
	for from < to {
		n := min(to-from, 64<<10)
		if f.cut > 0 && from-first+n > f.cut {
			n = f.cut - (from - first)
		}
		if n == 0 {
			panic(http.ErrAbortHandler)
		}
		b := content[from : from+n]
		if f.mangle != nil {
			b = append([]byte(nil), b...)
			f.mangle(strings.TrimPrefix(req.URL.Path, "/"), from, b)
		}
		m, err := w.Write(b)
		r.sent.Add(int64(m))
		if err != nil {
			return
		}
		if f.rate > 0 {
			w.(http.Flusher).Flush()
			pause(req.Context(), time.Duration(m)*time.Second/time.Duration(f.rate))
		}
		from += n
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func parseRange(h string, size int64) (from, to int64) {
	a, b, _ := strings.Cut(strings.TrimPrefix(h, "bytes="), "-")
	from, _ = strconv.ParseInt(a, 10, 64)
	to = size
	if b != "" {
		last, _ := strconv.ParseInt(b, 10, 64)
		to = min(last+1, size)
	}
	return min(from, to), to
}

func etag(content []byte) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(len(content)))
	if len(content) > 0 {
		b[7] = content[0] ^ content[len(content)-1]
	}
	return `"` + hex.EncodeToString(b[:]) + `"`
}

// A web is the backend for a registry.
type web struct {
	url  string
	http *http.Client
}

func (b *web) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, errors.ErrUnsupported
}

func (b *web) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/"+img.Ref.Name, nil)
	if err != nil {
		return nil, err
	}
	to := ""
	if n >= 0 {
		to = strconv.FormatInt(off+n-1, 10)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", off, to))
	if img.Version != "" {
		req.Header.Set("If-Match", img.Version)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, backends.TransportError(err)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent || code == http.StatusOK && off == 0:
		return resp.Body, nil
	case code == http.StatusOK:
		err = fmt.Errorf("%w: no ranges", errors.ErrUnsupported)
	case code == http.StatusNotFound:
		err = fs.ErrNotExist
	case code == http.StatusPreconditionFailed:
		err = backends.ErrChanged
	case code == http.StatusForbidden:
		err = fs.ErrPermission
	default:
		err = fmt.Errorf("%w: status %d", backends.ErrUnavailable, code)
	}
	resp.Body.Close()
	return nil, err
}

// client returns a client of the registry.
func (r *registry) client(t testing.TB) *backends.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(tr.CloseIdleConnections)
	return backends.NewClient("lab", &web{url: r.URL, http: &http.Client{Transport: tr}},
		backends.ClientOptions{MaxElapsed: time.Minute, Origin: r.URL})
}

// content returns size bytes in which no two stretches are alike.
func randomBytes(seed uint64, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed), 1}).Read(b)
	return b
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// image puts content under name and describes it.
func (r *registry) image(name string, content []byte) backends.Image {
	r.put(name, content)
	return backends.Image{Ref: backends.Ref{Collection: "c", Name: name, Tag: "1"}, Size: int64(len(content)),
		Digest: sha256Of(content), Version: etag(content)}
}

// openCache opens a cache whose messages go to the test's log.
func openCache(t testing.TB, dir string, opts Options) *Cache {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if opts.StrictSize == 0 {
		opts.StrictSize = -1 // most tests watch small blobs come in
	}
	if opts.MinFree == 0 {
		opts.MinFree = -1
	}
	c, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func openBlob(t testing.TB, c *Cache, client *backends.Client, img backends.Image) *Blob {
	t.Helper()
	b, err := c.Blob(t.Context(), client, img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}
