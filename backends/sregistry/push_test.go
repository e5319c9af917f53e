// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// python runs the client that is not ours.
func python(t *testing.T, args ...string) string {
	t.Helper()
	exe, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"testdata/client.py"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client.py %q: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func TestPython_sign(t *testing.T) {
	t.Parallel()
	for _, in := range [][]string{
		{"vanessa", "t0k3n", "pull", "20190712T14Z", "vanessa", "tacos", "1.0"},
		{"größe", "schlüssel", "delete", "20261121T00Z", "My_Old.Collection", "team/tool", "v1.0+b"},
		{"a", "b", "upload", "20261121T00Z", "--x--", "y", "latest"},
		{"user", strings.Repeat("k", 100), "push", "20261121T23Z", "A", "B", "C"},
	} {
		got := sregistry.Sign(in[0], in[1], in[2], in[3], in[4], in[5], in[6])
		if want := python(t, append([]string{"sign"}, in...)...); got != want {
			t.Errorf("Sign(%q) = %q, want %q", in, got, want)
		}
	}
}

// The other client pushes what we read and deletes what we pushed.
func TestPython_client(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	content := bytesOf("python", 100_000)
	file := filepath.Join(t.TempDir(), "image.sif")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := python(t, "push", srv.URL, sregistrytest.User, sregistrytest.Token, "lab-images", "tacos", "1.0", file); !strings.Contains(got, "Upload Complete") {
		t.Fatalf("push: %q", got)
	}
	b := newRemote(t, srv.URL, sregistrytest.Token)
	backendtest.WantRead(t, b, backendtest.Stat(t, b, "lab-images/tacos:1.0"), 0, -1, content)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "lab-images/tacos:2.0"), backendtest.Source(content)); err != nil {
		t.Fatal(err)
	}
	python(t, "delete", srv.URL, sregistrytest.User, sregistrytest.Token, "lab-images", "tacos", "2.0")
	if _, err := b.Stat(t.Context(), backendtest.Ref(t, "lab-images/tacos:2.0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the other client's delete: %v", err)
	}
}

// Another parser reads in our form what we meant.
func TestPython_form(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true})
	content := bytesOf("form\r\n--", 70_000)
	recorded := filepath.Join(t.TempDir(), "form")
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	contentType := ""
	hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if req.URL.Path != "/upload" {
			return next.RoundTrip(req)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil || int64(len(body)) != req.ContentLength {
			t.Errorf("%d bytes with a Content-Length of %d, %v", len(body), req.ContentLength, err)
		}
		if err := os.WriteFile(recorded, body, 0o600); err != nil {
			return nil, err
		}
		contentType = req.Header.Get("Content-Type")
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
		return next.RoundTrip(req)
	}}
	b := newRemoteVia(t, hc, srv.URL, sregistrytest.Token)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "vsoch/tacos:1.0"), backendtest.Source(content)); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(python(t, "form", contentType, recorded)), &got); err != nil {
		t.Fatal(err)
	}
	event := got["SREGISTRY_EVENT"]
	stamp := strings.Split(event, "/")
	want := map[string]string{
		"SREGISTRY_EVENT": python(t, "sign", sregistrytest.User, sregistrytest.Token, "upload", stamp[2][:12], "vsoch", "tacos", "1.0"),
		"name":            "tacos", "tag": "1.0", "collection": "1",
		"file1": fmt.Sprintf("%x", sha256.Sum256(content)), "file1.filename": "tacos:1.0.sif", "file1.type": "text/plain",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the form (-want +got):\n%s", diff)
	}
}

// An editing transport may answer in the place of the next one.
type editing struct {
	next http.RoundTripper
	edit func(*http.Request, http.RoundTripper) (*http.Response, error)
}

func (e editing) RoundTrip(req *http.Request) (*http.Response, error) { return e.edit(req, e.next) }

// lossy drops the connection after the server has answered the first request
// that match takes.
func lossy(t *testing.T, match func(*http.Request) bool) *http.Client {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	var lost atomic.Bool
	hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && match(req) && !lost.Swap(true) {
			resp.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return resp, err
	}}
	return hc
}

// A push whose last answer was lost is found done by the next one, also by that
// of another process.
func TestPush_lostAnswer(t *testing.T) {
	t.Parallel()
	for last, noLibrary := range map[string]bool{"/upload": true, "/v1/tags/": false} {
		srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: noLibrary})
		hc := lossy(t, func(req *http.Request) bool { return strings.HasPrefix(req.URL.Path, last) })
		src, kept := backendtest.Source(bytesOf("x", 5000)), new(backendtest.Session)
		src.Session = kept
		if _, err := newRemoteVia(t, hc, srv.URL, sregistrytest.Token).Push(t.Context(), backendtest.Ref(t, "c/i:1"), src); !errors.Is(err, backends.ErrUnavailable) {
			t.Fatalf("%s: Push = %v, want ErrUnavailable", last, err)
		}
		img, err := newRemote(t, srv.URL, sregistrytest.Token).Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
		if err != nil || img.Version == "" {
			t.Errorf("%s: the next Push = %+v, %v", last, img, err)
		}
		if kept.Load() != nil {
			t.Errorf("%s: the session keeps %s", last, kept.Load())
		}
		if n := srv.Count("POST " + last); n != 1 {
			t.Errorf("%s was sent %d times", last, n)
		}
		// Another file of the same name is no success.
		if _, err := newRemote(t, srv.URL, sregistrytest.Token).Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(bytesOf("y", 5000))); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: a Push of other bytes: %v, want fs.ErrExist", last, err)
		}
	}
}

// A server that does not say what it has leaves open whether the name is ours.
func TestPush_lostAnswerUntold(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true})
	hc := lossy(t, func(req *http.Request) bool { return strings.HasPrefix(req.URL.Path, "/upload") })
	src := backendtest.Source(bytesOf("x", 5000))
	src.Session = new(backendtest.Session)
	ref := backendtest.Ref(t, "c/i:1")
	backendtest.WantErr(t, "Push", second(newRemoteVia(t, hc, srv.URL, sregistrytest.Token).Push(t.Context(), ref, src)), backends.ErrUnavailable)
	blank := &http.Client{Transport: untold{&http.Transport{DisableKeepAlives: true}}}
	backendtest.WantErr(t, "the next Push, before the server's worker has looked",
		second(newRemoteVia(t, blank, srv.URL, sregistrytest.Token).Push(t.Context(), ref, src)), backends.ErrUnavailable)
	if _, err := newRemote(t, srv.URL, sregistrytest.Token).Push(t.Context(), ref, src); err != nil {
		t.Errorf("the Push after that: %v", err)
	}
}

func second(_ backends.Image, err error) error { return err }

// untold is a server that has not looked into what it was sent.
type untold struct{ http.RoundTripper }

var version = regexp.MustCompile(`"version": ?"[^"]*"`)

func (u untold) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := u.RoundTripper.RoundTrip(req)
	if err != nil || !strings.HasPrefix(req.URL.Path, "/api/container/") {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	text = version.ReplaceAll(text, []byte(`"version":""`))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// What the server says of the bytes afterwards is believed.
func TestPush_storedWrongly(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true, BadWorker: true})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(bytesOf("x", 5000))); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Push to a server that stores other bytes: %v, want ErrCorrupt", err)
	}
}

func TestPush_parts(t *testing.T) {
	t.Parallel()
	content := bytesOf("parts", 1_050_000)
	for name, opts := range map[string]sregistrytest.Options{
		"parts":    {PartSize: 100_000},
		"one part": {PartSize: 2_000_000},
		"disabled": {PartSize: 100_000, NoParts: true},
		"refused":  {PartSize: 100_000, RefuseParts: true},
	} {
		srv := sregistrytest.Start(t, opts)
		b := newRemote(t, srv.URL, sregistrytest.Token)
		sregistry.SetPartSize(b, 50_000)
		src, last := backendtest.Source(content), int64(0)
		src.Progress = func(stored int64) { last = stored }
		img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
		if err != nil || img.Size != src.Size || img.Digest != src.Digest || last != src.Size {
			t.Errorf("%s: Push = %+v, %v, progress %d", name, img, err, last)
			continue
		}
		backendtest.WantRead(t, b, img, 0, -1, content)
	}
}

// A push that was broken off goes on in another process with the part it lacks.
func TestPush_resume(t *testing.T) {
	t.Parallel()
	content := bytesOf("parts", 1_050_000)
	srv := sregistrytest.Start(t, sregistrytest.Options{PartSize: 100_000})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if req.URL.Query().Get("partNumber") == "8" {
			req.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return next.RoundTrip(req)
	}}
	src := backendtest.Source(content)
	src.Session = new(backendtest.Session)
	b := newRemoteVia(t, hc, srv.URL, sregistrytest.Token)
	sregistry.SetPartSize(b, 50_000)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatalf("Push = %v, want ErrUnavailable", err)
	}
	if srv.Content("c", "i", "1") != nil {
		t.Error("half an image is visible")
	}
	before := srv.Count("PUT store/")
	b = newRemote(t, srv.URL, sregistrytest.Token)
	sregistry.SetPartSize(b, 50_000)
	img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	backendtest.WantRead(t, b, img, 0, -1, content)
	if n := srv.Count("PUT store/") - before; n != 4 {
		t.Errorf("%d parts sent after the 7 of 11", n)
	}
}

// The same bytes under a second name are sent again: the server does not say that it
// has them.
func TestPush_secondName(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	content := bytesOf("x", 5000)
	for _, tag := range []string{"1", "2"} {
		if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:"+tag), backendtest.Source(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tag := range []string{"1", "2"} {
		backendtest.WantRead(t, b, backendtest.Stat(t, b, "c/i:"+tag), 0, -1, content)
	}
	if n := srv.Count("PUT store/"); n != 2 {
		t.Errorf("the bytes were sent %d times", n)
	}
	// That the same bytes have the name already is success, also for somebody else.
	if _, err := newRemote(t, srv.URL, sregistrytest.Token).Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(content)); err != nil || srv.Count("PUT store/") != 2 {
		t.Errorf("Push of the same bytes to a name that is taken: %v, and they were sent %d times", err, srv.Count("PUT store/"))
	}
	wrong := backendtest.Source(content)
	wrong.Content = bytes.NewReader(bytesOf("y", 5000))
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:3"), wrong); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Push of other bytes with a digest that the server has: %v, want ErrCorrupt", err)
	}
}

// A server without the library API may answer its paths with a page.
func TestPush_way(t *testing.T) {
	t.Parallel()
	content := bytesOf("x", 5000)
	for name, tt := range map[string]struct {
		way     string
		page    bool
		library bool
		err     error
	}{
		"auto":             {way: "auto", library: true},
		"auto with a page": {way: "auto", page: true},
		"upload":           {way: "upload"},
		"library":          {way: "library", library: true},
		"library, a page":  {way: "library", page: true, err: backends.ErrBadAnswer},
	} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		hc := backends.NewHTTPClient(backends.HTTPOptions{})
		t.Cleanup(hc.CloseIdleConnections)
		hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			if !tt.page || !strings.HasPrefix(req.URL.Path, "/v1/") {
				return next.RoundTrip(req)
			}
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("<html>")), Request: req}, nil
		}}
		b, err := open(t.Context(), backends.Env{Remote: "lab", HTTP: hc, Config: map[string]any{"url": srv.URL, "push_by": tt.way}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = b.(remote).Push(t.Context(), backendtest.Ref(t, "c/i:1"), backendtest.Source(content)); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
		if got := srv.Count("POST /v1/tags/") == 1; got != tt.library {
			t.Errorf("%s: by the library: %v", name, got)
		}
		if got := srv.Content("c", "i", "1"); tt.err == nil && !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes are there", name, len(got))
		}
	}
	for _, config := range []map[string]any{{"url": "https://x", "push_by": "both"}, {"url": "https://x", "ulr": "y"}, {}} {
		if _, err := sregistry.Open(t.Context(), backends.Env{Remote: "lab", Config: config}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Open(%v): %v, want fs.ErrInvalid", config, err)
		}
	}
	// The base64 of this name has a slash, at which the server would split it.
	env := backends.Env{Remote: "lab", User: "a??", Config: map[string]any{"url": "https://x"}}
	if _, err := sregistry.Open(t.Context(), env); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Open for %q: %v, want fs.ErrInvalid", env.User, err)
	}
}

// Over the week's quota nothing is asked again.
func TestQuota_noRetry(t *testing.T) {
	t.Parallel()
	asked := 0
	srv := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, "429")
	})
	c := backends.NewClient("lab", newRemote(t, srv), backends.ClientOptions{})
	if _, err := c.Stat(t.Context(), backendtest.Ref(t, "c/i:1")); !errors.Is(err, backends.ErrRateLimited) || asked != 1 {
		t.Errorf("%v after %d requests, want ErrRateLimited after one", err, asked)
	}
}

// What the server would store under another name is refused without a request, and
// the error says which one.
func TestPush_name(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	c := backends.NewClient("lab", newRemote(t, srv.URL, sregistrytest.Token), backends.ClientOptions{})
	for spec, stored := range map[string]string{
		"My_Images/i:1": "my-images/i:1", "a/other/c:1": "a/c:1", "low/LOW:V1": "low/low:v1", "a/c.sifter:1": "a/cter:1", "-a-/c:1": "",
	} {
		_, err := c.Push(t.Context(), backendtest.Ref(t, spec), backendtest.Source(bytesOf("x", 500)))
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), stored) {
			t.Errorf("Push(%s), which the server would store as %q: %v", spec, stored, err)
		}
	}
	if n := len(srv.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// An old upload changes its version when the server's worker has looked at it.
func TestPush_versionSettles(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	src := backendtest.Source(bytesOf("x", 5000))
	first, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
	if err != nil || !strings.HasPrefix(first.Version, "md5:") {
		t.Fatalf("Push = %+v, %v", first, err)
	}
	srv.Work()
	now := backendtest.Stat(t, b, "c/i:1")
	if now.Digest != src.Digest || now.Version == first.Version {
		t.Errorf("after the worker: %+v", now)
	}
	if _, err := backendtest.Read(t, b, first, 0, -1); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("reading the first version: %v, want ErrChanged", err)
	}
}

// zeros is a file without an end that takes no room.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// A push, and a read of it, need the same memory for any size. Not parallel: it looks
// at what the whole process allocates.
func TestPush_memory(t *testing.T) { //nolint:paralleltest // see above
	for name, tt := range map[string]struct {
		size int64
		opts sregistrytest.Options
	}{
		"old":   {256 << 20, sregistrytest.Options{NoLibrary: true}},
		"whole": {64 << 20, sregistrytest.Options{NoParts: true}},
		"parts": {256 << 20, sregistrytest.Options{PartSize: 100 << 20}},
	} {
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(zeros{}, 0, tt.size)); err != nil {
			t.Fatal(err)
		}
		srv := sregistrytest.Start(t, tt.opts)
		b := newRemote(t, srv.URL, sregistrytest.Token)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		src := backends.Source{Content: zeros{}, Size: tt.size, Digest: fmt.Sprintf("sha256:%x", sum.Sum(nil))}
		img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := b.Open(t.Context(), img, 0, -1)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sum.Reset()
		_, err = io.Copy(sum, body)
		body.Close()
		if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); err != nil || got != src.Digest {
			t.Errorf("%s: read back: %s, %v", name, got, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s: %d MiB allocated for a push and a read of %d MiB", name, used>>20, tt.size>>20)
		}
	}
}
