// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

func source(text []byte) backends.Source {
	sum := sha256.Sum256(text)
	return backends.Source{
		Content: bytes.NewReader(text), Size: int64(len(text)), Digest: "sha256:" + hex.EncodeToString(sum[:]), Format: "sif", Modified: noon,
	}
}

// big returns bytes of several pieces, the last one short.
func big(seed byte) []byte {
	text := make([]byte, 3*testPiece+12345)
	rand.NewChaCha8([32]byte{seed}).Read(text)
	return text
}

// nth answers the n-th request of a route with a status.
func nth(route string, n int64, status int) dropboxtest.Hook {
	var count atomic.Int64
	return func(r string, w http.ResponseWriter, _ *http.Request) bool {
		return r == route && count.Add(1) == n && dropboxtest.Refuse(w, status, "")
	}
}

// deaf lets the n-th request of a route be served, and then breaks the connection.
func deaf(srv *dropboxtest.Server, route string, n int64) dropboxtest.Hook {
	var count atomic.Int64
	return func(r string, _ http.ResponseWriter, req *http.Request) bool {
		if r != route || count.Add(1) != n {
			return false
		}
		srv.SetHook(nil)
		srv.ServeHTTP(httptest.NewRecorder(), req)
		panic(http.ErrAbortHandler)
	}
}

func wantBytes(t *testing.T, c *client, ref backends.Ref, want []byte) {
	t.Helper()
	img, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Errorf("Stat(%s): %v", ref, err)
		return
	}
	if got := readAll(t, c, img); got != string(want) {
		t.Errorf("%s: %d other bytes", ref, len(got))
	}
}

func TestPush_pieces(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	ref, text := mustRef(t, "vsoch/big:1"), big(1)
	src := source(text)
	var last int64
	src.Progress = func(n int64) { last = n }
	img, err := c.Push(t.Context(), ref, src)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, c, ref, text)
	if diff := cmp.Diff([]string{"/vsoch/big:1.sif"}, srv.Files()); diff != "" || last != src.Size || img.Size != src.Size {
		t.Errorf("%s, progress %d, %+v", diff, last, img)
	}
	if n := srv.Count("files/upload_session/append_v2"); n != 4 {
		t.Errorf("%d pieces", n)
	}
	// Sizes around the borders.
	for _, n := range []int{0, 1, testPiece - 1, testPiece, testPiece + 1, 2 * testPiece} {
		ref.Tag = fmt.Sprint("size", n)
		if _, err := c.Push(t.Context(), ref, source(text[:n])); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		wantBytes(t, c, ref, text[:n])
	}
	if n := srv.Sessions(); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

// A push that ended with the process goes on with the pieces that are missing.
func TestPush_resumes(t *testing.T) {
	t.Parallel()
	srv := dropboxtest.Start(t, dropboxtest.Options{})
	session := &backendtest.Session{}
	ref, text := mustRef(t, "vsoch/big:1"), big(2)
	start := func() *client {
		hc := backends.NewHTTPClient(backends.HTTPOptions{})
		t.Cleanup(hc.CloseIdleConnections)
		return open(t, srv, hc, nil).(*client)
	}
	push := func() error {
		src := source(text)
		src.Session = session
		_, err := start().Push(t.Context(), ref, src)
		return err
	}
	srv.SetHook(nth("files/upload_session/append_v2", 3, 500))
	if err := push(); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatalf("the broken push: %v", err)
	}
	if len(srv.Files()) != 0 || session.Load() == nil {
		t.Fatalf("files %q, state %q", srv.Files(), session.Load())
	}
	srv.SetHook(nil)
	before := srv.Count("files/upload_session/append_v2")
	if err := push(); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, start(), ref, text)
	if sent := srv.Count("files/upload_session/append_v2") - before; sent > 2 || srv.Count("files/upload_session/start") != 1 {
		t.Errorf("%d pieces sent again of 4, %d sessions", sent, srv.Count("files/upload_session/start"))
	}
	if session.Load() != nil {
		t.Errorf("the state stays: %s", session.Load())
	}
}

// Whatever answer is lost: the next try ends well, and with one file.
func TestPush_lostAnswer(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		route string
		n     int64
	}{
		{"files/upload_session/start", 1},
		{"files/upload_session/append_v2", 1},
		{"files/upload_session/append_v2", 4}, // the closing one
		{"files/upload_session/finish", 1},
		{"files/upload", 1},
	} {
		t.Run(fmt.Sprint(at.route, at.n), func(t *testing.T) {
			t.Parallel()
			srv, c := serve(t, dropboxtest.Options{})
			text := big(3)
			if at.route == "files/upload" {
				text = text[:5000]
			}
			ref := mustRef(t, "vsoch/big:1")
			srv.SetHook(deaf(srv, at.route, at.n))
			if _, err := c.Push(t.Context(), ref, source(text)); !errors.Is(err, backends.ErrUnavailable) {
				t.Fatalf("the first try: %v", err)
			}
			if _, err := c.Push(t.Context(), ref, source(text)); err != nil {
				t.Fatalf("the second try: %v", err)
			}
			wantBytes(t, c, ref, text)
			if n := srv.Count("files/upload_session/start"); n > 1 && at.route != "files/upload_session/start" {
				t.Errorf("%d sessions", n)
			}
			// The state is gone: another push is refused.
			if _, err := c.Push(t.Context(), ref, source(append([]byte("x"), text[1:]...))); !errors.Is(err, fs.ErrExist) {
				t.Errorf("the third: %v", err)
			}
		})
	}
}

// Dropbox drops sessions after a week; then it begins anew.
func TestPush_lostSession(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	ref, text := mustRef(t, "vsoch/big:1"), big(4)
	srv.SetHook(nth("files/upload_session/finish", 1, 503))
	if _, err := c.Push(t.Context(), ref, source(text)); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatal(err)
	}
	srv.DropSessions()
	if _, err := backends.NewClient("x", c, backends.ClientOptions{}).Push(t.Context(), ref, source(text)); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, c, ref, text)
}

// Bytes with another digest than promised are never seen under the name.
func TestPush_digest(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	src := source(big(5))
	src.Digest = source([]byte("other")).Digest
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/big:1"), src); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	if srv.Count("files/upload_session/finish") != 0 || len(srv.Files()) != 0 {
		t.Errorf("files %q", srv.Files())
	}
}

// A file that is stored with other bytes loses its name again.
func TestPush_storedWrong(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	srv.Put("/vsoch/old:1.sif", []byte("old"), noon)
	old, err := c.Stat(t.Context(), mustRef(t, "vsoch/old:1"))
	if err != nil {
		t.Fatal(err)
	}
	srv.SetHook(func(route string, w http.ResponseWriter, r *http.Request) bool {
		if route != "files/upload" {
			return false
		}
		var arg struct{ Path string }
		arg.Path = "/vsoch/" + map[bool]string{true: "old", false: "new"}[strings.Contains(r.Header.Get("Dropbox-API-Arg"), "old")] + ":1.sif"
		rev := srv.Put(arg.Path, []byte("damaged"), noon)
		return dropboxtest.Refuse(w, 200, fmt.Sprintf(`{"name": %q, "path_display": %q, "path_lower": %q, "id": "id:1", "rev": %q, "size": 7, "content_hash": %q,
			"is_downloadable": true, "client_modified": "2024-01-01T00:00:00Z", "server_modified": "2024-01-01T00:00:00Z"}`,
			arg.Path[7:], arg.Path, arg.Path, rev, dropboxtest.Hash([]byte("damaged"))))
	})
	src := source([]byte("1234567"))
	if _, err := c.Push(t.Context(), mustRef(t, "vsoch/new:1"), src); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	src.Replaces = old.Version
	if _, err := c.Push(t.Context(), old.Ref, src); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	srv.SetHook(nil)
	if diff := cmp.Diff([]string{"/vsoch/old:1.sif"}, srv.Files()); diff != "" {
		t.Error(diff)
	}
	wantBytes(t, c, old.Ref, []byte("old"))
}

// Replacing goes by rev, also where the old file is spelled in an old way.
func TestPush_replaces(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	for _, path := range []string{"/v/a:1.simg", "/v/b-1.simg", "/v/c:1@0f.sif", "/v/d:1.sif"} {
		srv.Put(path, []byte(path), noon)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		ref := mustRef(t, "v/"+name+":1")
		old, err := c.Stat(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		src := source([]byte("new " + name))
		if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s without Replaces: %v", name, err)
		}
		src.Replaces = old.Version
		if img, err := c.Push(t.Context(), ref, src); err != nil || img.Ref != ref {
			t.Errorf("%s: %s, %v", name, img.Ref, err)
		}
		wantBytes(t, c, ref, []byte("new "+name))
		src = source([]byte("NEW " + name))
		src.Replaces = old.Version
		if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("%s with the old version: %v", name, err)
		}
	}
	// An old spelling has a name of its own, and a version is kept.
	want := []string{"/v/a:1.sif", "/v/b-1.simg", "/v/b:1.sif", "/v/c:1.sif", "/v/c:1@0f.sif", "/v/d:1.sif"}
	if diff := cmp.Diff(want, srv.Files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	// Somebody else is faster: between our look and our commit.
	ref := mustRef(t, "v/d:1")
	now, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	srv.SetHook(func(route string, _ http.ResponseWriter, _ *http.Request) bool {
		if route == "files/upload" {
			srv.Put("/v/d:1.sif", []byte("theirs"), noon)
		}
		return false
	})
	src := source([]byte("ours"))
	src.Replaces = now.Version
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Push over a change: %v, want ErrChanged", err)
	}
	wantBytes(t, c, ref, []byte("theirs"))
	srv.SetHook(nil)
	// In another case it is the same file, and is refused with its name.
	for _, spec := range []string{"V/D:1", "v/D:1"} {
		other := source([]byte("other case"))
		for _, other.Replaces = range []string{"", backends.ReplaceAny} {
			if _, err := c.Push(t.Context(), mustRef(t, spec), other); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "v/d:1") {
				t.Errorf("Push to %s: %v", spec, err)
			}
		}
	}
	wantBytes(t, c, ref, []byte("theirs"))
	// So is a new name in a folder that is there in another case.
	if _, err := c.Push(t.Context(), mustRef(t, "V/new:1"), source(nil)); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "v/new:1") {
		t.Errorf("Push to V/new:1: %v", err)
	}
	srv.Mkdir("/v/folder:1.sif")
	if _, err := c.Push(t.Context(), mustRef(t, "v/folder:1"), source(nil)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Push over a folder: %v", err)
	}
}

// "Too many write operations" and Retry-After are waited for.
func TestPush_rateLimited(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	var count atomic.Int64
	srv.SetHook(func(route string, w http.ResponseWriter, _ *http.Request) bool {
		if route != "files/upload" || count.Add(1) > 2 {
			return false
		}
		return dropboxtest.Refuse(w, 409, `{"error_summary": "x", "error": {".tag": "path", "reason": {".tag": "too_many_write_operations"}, "upload_session_id": "x"}}`)
	})
	ref := mustRef(t, "v/x:1")
	if _, err := backends.NewClient("x", c, backends.ClientOptions{}).Push(t.Context(), ref, source([]byte("x"))); err != nil {
		t.Error(err)
	}
	wantBytes(t, c, ref, []byte("x"))
	srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		return dropboxtest.Refuse(w, 429, `{"error_summary": "too_many_requests/..", "error": {"reason": {".tag": "too_many_requests"}, "retry_after": 300}}`)
	})
	if _, err := c.Stat(t.Context(), ref); !errors.Is(err, backends.ErrRateLimited) || backends.RetryAfter(err).Seconds() != 300 {
		t.Errorf("%v, want to wait 300 s", err)
	}
}

// One change at a time: that is Dropbox's rule for a namespace.
func TestPush_serial(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	var now, most atomic.Int64
	srv.SetHook(func(route string, w http.ResponseWriter, r *http.Request) bool {
		if route != "files/upload" {
			return false
		}
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		io.Copy(io.Discard, r.Body)
		runtime.Gosched()
		return dropboxtest.Refuse(w, 507, "")
	})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := c.Push(t.Context(), mustRef(t, fmt.Sprintf("v/x:%d", i)), source(make([]byte, 100_000))); err == nil {
				t.Error("no error")
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d changes at once", most.Load())
	}
}

// A sparse file of zeros.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// However large the file, the memory is that of the pieces under way. It is not
// parallel, for the heap is that of all.
func TestPush_memory(t *testing.T) { //nolint:paralleltest // see above
	const size, limit = 256 << 20, 110 << 20
	srv, c := serve(t, dropboxtest.Options{})
	c.piece = pieceSize
	h := sha256.New()
	io.Copy(h, io.NewSectionReader(zeros{}, 0, size))
	src := backends.Source{Content: zeros{}, Size: size, Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Format: "sif"}
	var most uint64
	src.Progress = func(int64) {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		most = max(most, stats.HeapAlloc)
	}
	runtime.GC()
	img, err := c.Push(t.Context(), mustRef(t, "v/big:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB at most, %d requests", most>>20, srv.Requests())
	if most > limit {
		t.Errorf("%d MiB of memory for a push of %d MiB", most>>20, size>>20)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	h.Reset()
	if _, err := io.Copy(h, body); err != nil || "sha256:"+hex.EncodeToString(h.Sum(nil)) != src.Digest {
		t.Errorf("read back: %x, %v", h.Sum(nil), err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d MiB allocated to read %d MiB", used>>20, size>>20)
	}
}
