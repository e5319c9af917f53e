// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/internal/files"
)

var ref = backends.Ref{Collection: "c", Name: "hello", Tag: "1"}

// between starts a proxy to srv that shows each request to change, which may answer itself, and
// returns its address.
func between(t *testing.T, srv *webtest.Server, change func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	to, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !change(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// at returns the backend at an address.
func at(t *testing.T, address string) *client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return plain(backendtest.Open(t, Open, &http.Client{Transport: transport}, map[string]any{"url": address}))
}

// plain is what all servers can do.
func plain(b backends.Backend) *client {
	if c, ok := b.(*cloud); ok {
		return c.client
	}
	return b.(*client)
}

func stored(t *testing.T, srv *webtest.Server, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(srv.Root, filepath.FromSlash(path)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// A server that replaces in spite of "Overwrite: F" is not pushed to.
func TestOverwriteIgnored(t *testing.T) {
	t.Parallel()
	srv := servers["apache"](t)
	c := at(t, between(t, srv, func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Overwrite")
		return false
	}))
	if _, err := c.Push(t.Context(), ref, source("one")); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "Overwrite") {
		t.Errorf("Push: %v, want errors.ErrUnsupported and the reason", err)
	}
	if left := hidden(t, srv, "c"); left != nil || stored(t, srv, "c/hello:1.sif") != "" {
		t.Errorf("there are %q and the image", left)
	}
}

// A server whose disk folds case keeps what is there under another spelling.
func TestFolded(t *testing.T) {
	t.Parallel()
	srv := servers["apache"](t)
	c := at(t, between(t, srv, func(_ http.ResponseWriter, r *http.Request) bool {
		r.URL.Path, r.URL.RawPath = strings.ToLower(r.URL.Path), ""
		for _, name := range []string{"Destination", "If"} {
			if text := r.Header.Get(name); text != "" {
				r.Header.Set(name, strings.ToLower(text))
			}
		}
		return false
	}))
	img, err := c.Push(t.Context(), ref, source("low"))
	if err != nil {
		t.Fatal(err)
	}
	for _, replaces := range []string{"", backends.ReplaceAny, img.Version} {
		for _, spec := range []string{"c/Hello:1", "C/hello:1", "C/new:1"} {
			to, err := backends.ParseRef(spec)
			if err != nil {
				t.Fatal(err)
			}
			src := source("up")
			src.Replaces = replaces
			if _, err := c.Push(t.Context(), to, src); err == nil {
				t.Errorf("Push(%s) over %q succeeded", to, replaces)
			} else if replaces != "" && to.Collection == "c" && !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Push(%s) over %q: %v, want fs.ErrInvalid", to, replaces, err)
			}
		}
	}
	if stored(t, srv, "c/hello:1.sif") != "low" || stored(t, srv, "c/new:1.sif") != "" {
		t.Error("something was replaced, or stored under another name")
	}
	src := source("low too")
	src.Replaces = img.Version
	if _, err := c.Push(t.Context(), ref, src); err != nil {
		t.Errorf("Push over the same spelling: %v", err)
	}
	if left := hidden(t, srv, "c"); left != nil {
		t.Errorf("there is %q", left)
	}
}

// A server that neither locks nor compares has nothing replaced, and removes what was meant only.
func TestConditionsIgnored(t *testing.T) {
	t.Parallel()
	srv := servers["apache"](t)
	path := "c/hello:1.sif"
	var meanwhile atomic.Bool // somebody else stores right before the file is moved aside
	c := at(t, between(t, srv, func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("If")
		if r.Method == "LOCK" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		}
		if r.Method == "MOVE" && strings.HasSuffix(r.URL.Path, path) && meanwhile.Swap(false) {
			srv.Put(path, []byte("theirs"), time.Now())
		}
		return false
	}))
	img, err := c.Push(t.Context(), ref, source("one"))
	if err != nil {
		t.Fatal(err)
	}
	src := source("two")
	src.Replaces = img.Version
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "remove it first") {
		t.Errorf("Push over another: %v, want errors.ErrUnsupported and what to do", err)
	}
	meanwhile.Store(true)
	if err := c.Delete(t.Context(), img); !errors.Is(err, backends.ErrChanged) || stored(t, srv, path) != "theirs" {
		t.Errorf("Delete of what changes meanwhile: %v and %q, want ErrChanged and theirs", err, stored(t, srv, path))
	}
	if img, err = c.Reader.Stat(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), img); err != nil || stored(t, srv, path) != "" {
		t.Errorf("Delete: %v, and %q stays", err, stored(t, srv, path))
	}
	if left := hidden(t, srv, "c"); left != nil {
		t.Errorf("there is %q", left)
	}
}

// What somebody else stores right before the request that would replace or remove it stays.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"apache", "apache-nolocks"} {
		for _, method := range []string{"MOVE", http.MethodDelete} {
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				srv := servers[name](t)
				var armed atomic.Bool
				path := "c/hello:1.sif"
				c := at(t, between(t, srv, func(_ http.ResponseWriter, r *http.Request) bool {
					at := r.URL.Path
					if method == "MOVE" {
						at = r.Header.Get("Destination")
					}
					if r.Method == method && strings.HasSuffix(at, ".sif") && armed.Load() {
						srv.Put(path, []byte("theirs"), time.Now())
					}
					return false
				}))
				img, err := c.Push(t.Context(), ref, source("one"))
				if err != nil {
					t.Fatal(err)
				}
				armed.Store(true)
				if method == http.MethodDelete {
					err = c.Delete(t.Context(), img)
				} else {
					src := source("two")
					src.Replaces = img.Version
					_, err = c.Push(t.Context(), ref, src)
				}
				if !errors.Is(err, backends.ErrChanged) || stored(t, srv, path) != "theirs" {
					t.Errorf("%v, and there is %q, want ErrChanged and theirs", err, stored(t, srv, path))
				}
			})
		}
	}
}

// What a killed push leaves is invisible; the same push removes it, and another one does when
// nothing can go on with it any more.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	srv := servers["rclone"](t) // which keeps the half of a file
	address := srv.URL
	src := source(strings.Repeat("x", 1<<20))
	session := new(backendtest.Session)
	src.Session = session
	ctx, kill := context.WithCancel(t.Context())
	killed := between(t, srv, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			srv.Put(strings.TrimPrefix(r.URL.Path, "/"), make([]byte, 1000), time.Now())
			kill()
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodDelete { // nor could it clean up
			panic(http.ErrAbortHandler)
		}
		return false
	})
	srv.Put("c/other:1.sif", []byte("other"), time.Now())
	if _, err := at(t, killed).Push(ctx, ref, src); err == nil {
		t.Fatal("a push that was killed succeeded")
	}
	if left := hidden(t, srv, "c"); len(left) != 1 {
		t.Fatalf("there is %q, want one hidden file", left)
	}
	c := at(t, address)
	all, err := backends.Collect(c.List(t.Context(), "c"))
	if err != nil || len(all) != 1 {
		t.Errorf("List gives %v, %v, want the other image only", all, err)
	}
	if _, err := c.Push(t.Context(), ref, src); err != nil {
		t.Fatal(err)
	}
	if left := hidden(t, srv, "c"); left != nil {
		t.Errorf("after the same push there is %q", left)
	}
	old, fresh := files.Hidden+"20200101-OLD", files.Hidden+time.Now().UTC().Format(dayLayout)+"-NEW"
	for _, name := range []string{old, fresh, files.Hidden + "not-ours"} {
		srv.Put("c/"+name, []byte("half"), time.Now())
	}
	next := ref
	next.Tag = "2"
	if _, err := c.Push(t.Context(), next, source("next")); err != nil {
		t.Fatal(err)
	}
	if left := hidden(t, srv, "c"); !slices.Equal(left, []string{fresh, files.Hidden + "not-ours"}) {
		t.Errorf("after another push there is %q", left)
	}
}

func random(size int) backends.Source {
	text := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(text)
	src := source(string(text))
	src.Content = bytes.NewReader(text)
	return src
}

// A chunked upload that broke off goes on with the chunks that are missing, in another process,
// too, and leaves nothing.
func TestChunks_resumed(t *testing.T) {
	t.Parallel()
	const chunk = 5_000_000 // the least that Nextcloud takes
	n := newNextcloud(t, chunk)
	var puts, broken atomic.Int64
	var others sync.WaitGroup // the chunks that arrive the first time
	others.Add(2)
	n.hook = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method != http.MethodPut || !strings.HasPrefix(r.URL.Path, ncUploads):
			return false
		case filepath.Base(r.URL.Path) == "00003" && broken.Add(1) == 1:
			others.Wait()
			w.WriteHeader(http.StatusForbidden)
			return true
		case puts.Add(1) <= 2:
			defer others.Done()
		}
		n.serve(w, r)
		return true
	}
	src := random(2*chunk + 12345)
	src.Session = new(backendtest.Session)
	folder := ncFiles + "images"
	open := func() *client {
		c := at(t, n.URL+folder)
		c.store.chunk = chunk
		return c
	}
	if _, err := open().Push(t.Context(), ref, src); err == nil {
		t.Fatal("Push succeeded without its last chunk")
	}
	img, err := open().Push(t.Context(), ref, src)
	if err != nil {
		t.Fatal(err)
	}
	if puts.Load() != 3 {
		t.Errorf("%d chunks were sent, want each once", puts.Load())
	}
	if img.Digest != src.Digest || img.Modified.Unix() != src.Modified.Unix() {
		t.Errorf("Push gave %+v, want its digest and time", img)
	}
	if sum := sha256.Sum256([]byte(stored(t, n.apache, folder+"/c/hello:1.sif"))); fmt.Sprintf("sha256:%x", sum) != src.Digest {
		t.Error("other bytes were stored")
	}
	if left := hidden(t, n.apache, folder+"/c"); left != nil || n.left() != 0 {
		t.Errorf("there are %q and %d uploads", left, n.left())
	}
}

// Where the answer to the last request is lost, the next try finds the file; where it was none
// (a proxy in between waited no longer), the chunks are still there.
func TestChunks_answerLost(t *testing.T) {
	t.Parallel()
	for _, served := range []bool{true, false} {
		n := newNextcloud(t, 1)
		var puts, moves atomic.Int64
		n.hook = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, ncUploads):
				puts.Add(1)
			case r.Method == "MOVE" && strings.HasSuffix(r.URL.Path, "/.file") && moves.Add(1) == 1:
				if served {
					n.serve(httptest.NewRecorder(), r)
				}
				w.WriteHeader(http.StatusGatewayTimeout)
				return true
			}
			return false
		}
		c := at(t, n.URL+ncFiles+"images")
		c.store.chunk = 10
		src := source(strings.Repeat("chunks", 10))
		src.Session = new(backendtest.Session)
		if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrUnavailable) {
			t.Fatalf("Push whose answer is lost: %v, want ErrUnavailable", err)
		}
		img, err := c.Push(t.Context(), ref, src)
		if err != nil || img.Digest != src.Digest {
			t.Errorf("Push again: %+v, %v", img, err)
		}
		if puts.Load() != 6 {
			t.Errorf("%d chunks were sent, want 6", puts.Load())
		}
		if left := hidden(t, n.apache, ncFiles+"images/c"); left != nil || n.left() != 0 {
			t.Errorf("there are %q and %d uploads", left, n.left())
		}
	}
}

// Nextcloud refuses a password where only an app password will do: the message says so.
func TestLogin_appPassword(t *testing.T) {
	t.Parallel()
	n := newNextcloud(t, 1)
	wrong := func(context.Context, bool) (string, error) { return "wrong", nil }
	c := plain(backendtest.Open(t, backendtest.LoggedIn(Open, "me", wrong), &http.Client{Transport: new(recorder)}, map[string]any{"url": n.URL + ncFiles + "images"}))
	if err := c.CheckLogin(t.Context()); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "app password") {
		t.Errorf("CheckLogin: %v, want ErrUnauthorized and a word on app passwords", err)
	}
}

// A link is made once, and is of the file that was meant.
func TestShare(t *testing.T) {
	t.Parallel()
	n := newNextcloud(t, 1)
	c := backendtest.Open(t, Open, &http.Client{Transport: new(recorder)}, map[string]any{"url": n.URL + ncFiles + "my%20images"}).(*cloud)
	img, err := c.Push(t.Context(), ref, source("hello"))
	if err != nil {
		t.Fatal(err)
	}
	want := "https://cloud.example/s/1?/my images/c/hello:1.sif"
	for range 2 {
		if link, err := c.Share(t.Context(), img, ""); err != nil || link != want {
			t.Errorf("Share = %q, %v, want %q", link, err, want)
		}
	}
	if _, err := c.Share(t.Context(), img, "me@example.org"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Share with somebody: %v, want errors.ErrUnsupported", err)
	}
	img.Version = `"other"`
	if _, err := c.Share(t.Context(), img, ""); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Share of what was replaced: %v, want ErrChanged", err)
	}
}

// A server at such an address without chunks gets whole files.
func TestChunks_none(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		n := newNextcloud(t, 1)
		n.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, ncUploads) {
				w.WriteHeader(status)
				return true
			}
			return false
		}
		c := at(t, n.URL+ncFiles+"images")
		c.store.chunk = 2
		for _, tag := range []string{"1", "2"} {
			to := ref
			to.Tag = tag
			if img, err := c.Push(t.Context(), to, source("hello")); err != nil || img.Digest != source("hello").Digest {
				t.Errorf("Push with status %d for chunks: %+v, %v", status, img, err)
			}
		}
	}
}

// Where there is no room for a file of ours, what is there can be deleted still.
func TestDelete_full(t *testing.T) {
	t.Parallel()
	srv := servers["apache"](t)
	srv.Put("c/hello:1.sif", []byte("one"), time.Now())
	c := at(t, between(t, srv, func(w http.ResponseWriter, r *http.Request) bool {
		status := map[string]int{http.MethodPut: http.StatusInsufficientStorage, "LOCK": http.StatusNotImplemented}[r.Method]
		if status == 0 {
			return false
		}
		w.WriteHeader(status)
		return true
	}))
	img, err := c.Reader.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), img); err != nil || stored(t, srv, "c/hello:1.sif") != "" || hidden(t, srv, "c") != nil {
		t.Errorf("Delete: %v; %q and %q stay", err, stored(t, srv, "c/hello:1.sif"), hidden(t, srv, "c"))
	}
}

// rclone reads and writes the same folder.
func TestRclone(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("rclone")
	if err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t)
			c := at(t, srv.URL+"/images")
			mine := random(1 << 20)
			if _, err := c.Push(t.Context(), ref, mine); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write := func(name string, text []byte) {
				path := filepath.Join(dir, filepath.FromSlash(name))
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			run := func(args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), program, append(args, "--config", filepath.Join(dir, "rclone.conf"), "--webdav-url", srv.URL)...)
				cmd.WaitDelay = time.Second
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("rclone %q: %v\n%s", args, err, out)
				}
			}
			write("in/tools/tool:2.sif", []byte("from rclone"))
			run("copy", filepath.Join(dir, "in"), ":webdav:images")
			all, err := backends.Collect(c.List(t.Context(), "tools"))
			if err != nil || len(all) != 1 || all[0].Image.Ref.String() != "tools/tool:2" || all[0].Image.Size != 11 {
				t.Errorf("List gives %+v, %v", all, err)
			}
			text, err := io.ReadAll(io.NewSectionReader(mine.Content, 0, mine.Size))
			if err != nil {
				t.Fatal(err)
			}
			write("out/hello:1.sif", text)
			run("check", "--download", filepath.Join(dir, "out"), ":webdav:images/c")
		})
	}
}
