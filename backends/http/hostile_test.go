// SPDX-License-Identifier: Apache-2.0

package http_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/backends/http/webtest"
)

// serve starts a server for what no real one does.
func serve(t *testing.T, handler nethttp.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

func page(w nethttp.ResponseWriter, links ...string) {
	w.Header().Set("Content-Type", "text/html")
	for _, link := range links {
		fmt.Fprintf(w, "<a href=\"%s\">x</a>\n", link)
	}
}

// file answers as nginx does.
func file(w nethttp.ResponseWriter, r *nethttp.Request, content string) {
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(content)))
	w.Header().Set("Content-Type", "application/octet-stream")
	nethttp.ServeContent(w, r, "", published, strings.NewReader(content))
}

func TestLogin(t *testing.T) {
	t.Parallel()
	srv := webtest.Nginx(t, webtest.Options{User: "me", Password: "hunter2"})
	srv.Put("c/x:1.sif", []byte("x"), published)
	for name, c := range map[string]struct {
		user     string
		secrets  []string // the first, then fresh ones
		want     error
		requests int
	}{
		"none":     {"", nil, backends.ErrUnauthorized, 1},
		"right":    {"me", []string{"hunter2"}, nil, 2},
		"wrong":    {"me", []string{"old"}, backends.ErrUnauthorized, 1},
		"renewed":  {"me", []string{"old", "hunter2"}, nil, 4},
		"no user":  {"", []string{"hunter2"}, backends.ErrUnauthorized, 1},
		"stranger": {"you", []string{"hunter2"}, backends.ErrUnauthorized, 1},
	} {
		env := backends.Env{User: c.user}
		if c.secrets != nil {
			env.Secret = func(_ context.Context, fresh bool) (string, error) {
				if fresh {
					return c.secrets[len(c.secrets)-1], nil
				}
				return c.secrets[0], nil
			}
		}
		r := open(t, env, map[string]any{"url": srv.URL})
		_, err := r.Stat(t.Context(), ref(t, "c/x:1"))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || len(r.asked()) != c.requests {
			t.Errorf("%s: %v, want %v with %d requests", name, err, c.want, c.requests)
		}
		check := r.Backend.(interface{ CheckLogin(context.Context) error }).CheckLogin(t.Context())
		if !errors.Is(check, c.want) || (check == nil) != (c.want == nil) {
			t.Errorf("%s: CheckLogin = %v, want %v", name, check, c.want)
		}
	}
}

// The login goes to the server that was configured, wherever that sends.
func TestLogin_sentAway(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []string
	mirror := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		mu.Lock()
		told = append(told, r.Header.Get("Authorization"))
		mu.Unlock()
		file(w, r, "from the mirror")
	})
	var auth string
	srv := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		mu.Lock()
		auth = r.Header.Get("Authorization")
		mu.Unlock()
		if strings.HasSuffix(r.URL.Path, ".sif") {
			nethttp.Redirect(w, r, mirror.URL+r.URL.Path, nethttp.StatusFound)
			return
		}
		nethttp.NotFound(w, r)
	})
	secret := func(context.Context, bool) (string, error) { return "s3cret", nil }
	r := open(t, backends.Env{Secret: secret}, map[string]any{"url": srv.URL})
	if text, err := r.read(t.Context(), r.stat(t, "c/x:1"), 5, 3); text != "the" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if auth != "Bearer s3cret" || len(told) != 2 || strings.Join(told, "") != "" {
		t.Errorf("the server was told %q, the mirror %q", auth, told)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { page(w, "evil:1.sif", "./evil:1.sif") })
	srv := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/away/":
			nethttp.Redirect(w, r, elsewhere.URL+"/away/", nethttp.StatusFound)
		case "/up/":
			nethttp.Redirect(w, r, "/", nethttp.StatusFound)
		case "/index/":
			nethttp.Redirect(w, r, "/index/index.html", nethttp.StatusFound)
		case "/":
			page(w, "a.sif")
		case "/index/index.html":
			page(w, "b.sif")
		case "/index/folder:1.sif":
			nethttp.Redirect(w, r, "/index/folder:1.sif/", nethttp.StatusMovedPermanently)
		case "/index/folder:1.sif/":
			page(w, "c.sif")
		case "/loop/", "/loop/x:1.sif":
			nethttp.Redirect(w, r, r.URL.Path, nethttp.StatusFound)
		default:
			nethttp.NotFound(w, r)
		}
	})
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	for collection, want := range map[string]error{"away": backends.ErrBadAnswer, "up": backends.ErrBadAnswer, "loop": backends.ErrUnavailable} {
		got, err := backends.Collect(r.client.List(t.Context(), collection))
		if !errors.Is(err, want) || len(got) > 0 {
			t.Errorf("List(%q) = %v, %v, want %v", collection, got, err, want)
		}
	}
	if diff := cmp.Diff([]string{"index/b:latest.sif"}, r.list(t, "index")); diff != "" {
		t.Error(diff)
	}
	for spec, want := range map[string]error{"loop/x:1": backends.ErrUnavailable, "index/folder:1": fs.ErrNotExist} {
		if img, err := r.client.Stat(t.Context(), ref(t, spec)); !errors.Is(err, want) {
			t.Errorf("Stat(%s) = %+v, %v, want %v", spec, img, err, want)
		}
	}
}

// What the client given refuses to follow (a private address, a step down to http:
// package backends tests which) is refused.
func TestRedirects_refused(t *testing.T) {
	t.Parallel()
	private := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) { t.Error("the private address was asked") })
	srv := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		nethttp.Redirect(w, r, private.URL+r.URL.Path, nethttp.StatusFound)
	})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	hc.CheckRedirect = func(*nethttp.Request, []*nethttp.Request) error {
		return fmt.Errorf("%w: refused", backends.ErrUnavailable)
	}
	b, err := http.Open(t.Context(), backends.Env{HTTP: hc, Config: map[string]any{"url": srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stat(t.Context(), ref(t, "c/x:1")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Stat: %v", err)
	}
	if _, err := b.Open(t.Context(), backends.Image{Ref: ref(t, "c/x:1"), Version: `"1"`, Size: 1}, 0, -1); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Open: %v", err)
	}
	if _, err := backends.Collect(b.(backends.Lister).List(t.Context(), "c")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("List: %v", err)
	}
}

// Links that lead out of the folder are left out; those to images are counted.
func TestList_hostile(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		page(w, "./good:1.sif", "scheme:1.sif", "../up.sif", "/etc/passwd", "/up.sif", "//evil/x.sif", "https://evil/y.sif", "%2e%2e", "%2e%2e%2fx.sif", "a%2fb.sif",
			"nul%00.sif", "q.sif?x=1", "?C=N;O=D", "../", "./good:1.sif", "%2e%2e/", "./%252E.:1.sif", "./escape%1B[31m:1.sif")
	})
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	if diff := cmp.Diff([]string{"c/escape%1B[31m:1.sif", "c/good:1.sif"}, r.list(t, "c")); diff != "" {
		t.Error(diff)
	}
	if n := r.client.Hidden(); n != 10 {
		t.Errorf("%d names hidden, want 10", n)
	}
}

// Servers that can less, or say things in other ways.
func TestServers_odd(t *testing.T) {
	t.Parallel()
	const content = "0123456789"
	plain := func(w nethttp.ResponseWriter, header ...string) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		fmt.Fprint(w, content)
	}
	const date = "Thu, 29 Feb 2024 12:30:00 GMT"
	for name, c := range map[string]struct {
		answer  nethttp.HandlerFunc
		version string
		err     error
	}{
		"no HEAD": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodHead {
				w.WriteHeader(nethttp.StatusMethodNotAllowed)
				return
			}
			file(w, r, content)
		}, `"10"`, nil},
		"neither HEAD nor ranges": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodHead {
				w.WriteHeader(nethttp.StatusNotImplemented)
				return
			}
			plain(w, "Last-Modified", date)
		}, "20240229T123000Z-10", nil},
		"weak, with a date": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Header.Get("If-Match") != "" {
				w.WriteHeader(nethttp.StatusPreconditionFailed) // as RFC 9110 wants it
				return
			}
			plain(w, "ETag", `W/"a"`, "Last-Modified", date)
		}, "20240229T123000Z-10", nil},
		"weak":       {func(w nethttp.ResponseWriter, _ *nethttp.Request) { plain(w, "ETag", `W/"a"`) }, `W/"a"`, nil},
		"no version": {func(w nethttp.ResponseWriter, _ *nethttp.Request) { plain(w) }, "", backends.ErrBadAnswer},
		"bad ETag":   {func(w nethttp.ResponseWriter, _ *nethttp.Request) { plain(w, "ETag", `"a" "b"`) }, "", backends.ErrBadAnswer},
		"no length": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			w.Header().Set("Last-Modified", date)
			w.Header().Set("Content-Type", "application/octet-stream")
			_ = nethttp.NewResponseController(w).Flush()
			fmt.Fprint(w, content)
		}, "20240229T123000Z", nil},
		"page": {func(w nethttp.ResponseWriter, _ *nethttp.Request) { page(w, "x:1.sif") }, "", backends.ErrBadAnswer},
		"compressed in itself": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if !strings.HasSuffix(r.URL.Path, ".img.gz") {
				w.WriteHeader(nethttp.StatusForbidden) // as object stores do where there is nothing
				return
			}
			w.Header().Set("Content-Encoding", "x-gzip")
			file(w, r, content)
		}, `"10"`, nil},
		"compressed by a proxy": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodGet {
				w.Header().Set("Content-Encoding", "gzip")
			}
			file(w, r, content)
		}, `"10"`, backends.ErrBadAnswer},
		"longer than before": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodGet {
				plain(w, "ETag", `"10"`, "Content-Length", "10000")
				return
			}
			file(w, r, content)
		}, `"10"`, backends.ErrBadAnswer},
		"longer than it says": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodGet && r.Header.Get("Range") != "bytes=0-0" {
				w.Header().Set("Content-Type", "application/octet-stream")
				_ = nethttp.NewResponseController(w).Flush() // without a length
				fmt.Fprint(w, content, strings.Repeat("and more", 1<<16))
				return
			}
			file(w, r, content)
		}, `"10"`, nil},
		"forbidden": {func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(nethttp.StatusForbidden) }, "", fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
				if strings.HasSuffix(r.URL.Path, "SHA256SUMS") {
					page(w) // also for what it lacks
					return
				}
				c.answer(w, r)
			})
			r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
			img, err := r.client.Stat(t.Context(), ref(t, "c/x:1"))
			if c.version == "" {
				if !errors.Is(err, c.err) {
					t.Errorf("Stat = %+v, %v, want %v", img, err, c.err)
				}
				return
			}
			if err != nil || img.Version != c.version {
				t.Fatalf("Stat = %+v, %v, want version %q", img, err, c.version)
			}
			for range 2 {
				text, err := r.read(t.Context(), img, 0, -1)
				if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || err == nil && text != content {
					t.Errorf("%q, %v, want %v", text, err, c.err)
				}
			}
		})
	}
}

func TestCheckLogin(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		200: nil, 403: nil, 404: nil, 405: nil, 401: backends.ErrUnauthorized, 500: backends.ErrUnavailable, 429: backends.ErrRateLimited,
	} {
		srv := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(status) })
		r := open(t, backends.Env{}, map[string]any{"url": srv.URL + "/x"})
		err := r.Backend.(interface{ CheckLogin(context.Context) error }).CheckLogin(t.Context())
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("HTTP %d: %v, want %v", status, err, want)
		}
		if method, address := r.Backend.(interface{ Knock() (string, string) }).Knock(); method != "GET" || address != srv.URL+"/x/" {
			t.Errorf("Knock = %s %s", method, address)
		}
	}
}

func TestOpen_settings(t *testing.T) {
	t.Parallel()
	for url, ok := range map[string]bool{
		"https://h/": true, "http://h:80/a/b": true, "h/images": true, "https://h/a%20b": true, "https://h/../b": true,
		"": false, "ftp://h/": false, "https://": false, "https://me:pw@h/": false, "https://h/?x": false, "https://h/#x": false, "https://h/%zz": false, "://": false,
	} {
		_, err := http.Open(t.Context(), backends.Env{Config: map[string]any{"url": url}})
		if (err == nil) != ok || err != nil && (!errors.Is(err, fs.ErrInvalid) || strings.Contains(err.Error(), "pw")) {
			t.Errorf("url %q: %v", url, err)
		}
	}
	for key, value := range map[string]any{"sums": "a/b", "sum": "x", "url": 7} {
		settings := map[string]any{"url": "https://h/"}
		settings[key] = value
		if _, err := http.Open(t.Context(), backends.Env{Config: settings}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s = %v: %v", key, value, err)
		}
	}
}

// The index of a server that says no length must have an end: its connection may
// have broken.
func TestList_cut(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"", "</body></html>"} {
		srv := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			conn, _, err := nethttp.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<a href=a.sif>%s", end)
		})
		b := open(t, backends.Env{}, map[string]any{"url": srv.URL}).Backend
		got, err := backends.Collect(b.(backends.Lister).List(t.Context(), ""))
		if (err == nil) != (end != "") || err != nil && !errors.Is(err, backends.ErrUnavailable) || err == nil && len(got) != 1 {
			t.Errorf("with the end %q: %v, %v", end, got, err)
		}
	}
}

// A list of digests makes up for a server that tells no version of its own.
func TestDigests_noVersion(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if strings.HasSuffix(r.URL.Path, "SHA256SUMS") {
			fmt.Fprint(w, sumLine("x:1.sif", []byte("content")))
			return
		}
		fmt.Fprint(w, "content")
	})
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	img := r.stat(t, "c/x:1")
	for range 2 {
		if text, err := r.read(t.Context(), img, 3, 3); text != "ten" || err != nil || !strings.HasPrefix(img.Version, "sha256:") {
			t.Errorf("%+v: %q, %v", img, text, err)
		}
	}
}

// Of an index of more than 64 MiB what was read is told, in the order of the names, and
// then that it is not all.
func TestIndex_tooLong(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		out := bufio.NewWriter(w)
		defer out.Flush()
		w.Header().Set("Content-Type", "text/html")
		spaces := strings.Repeat(" ", 64<<10)
		for i := 1100; i > 0; i-- {
			fmt.Fprintf(out, "<a href=%d%%3A1>%s\n", i, spaces)
		}
		fmt.Fprint(out, "<a href=last%3A1></html>")
	})
	r := open(t, backends.Env{}, map[string]any{"url": srv.URL})
	images, last, failed := 0, "", error(nil)
	for e, err := range r.client.List(t.Context(), "c") {
		if failed = err; err != nil {
			break
		}
		if images++; e.Image.Ref.Name <= last {
			t.Fatalf("%s after %s", e.Image.Ref.Name, last)
		}
		last = e.Image.Ref.Name
	}
	if images < 1000 || images >= 1100 || failed == nil || !strings.Contains(failed.Error(), "64 MiB") {
		t.Errorf("%d images, then %v", images, failed)
	}
	if n := len(r.asked()); n != 1 {
		t.Errorf("%d requests", n)
	}
}
