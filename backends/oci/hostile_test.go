// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// elsewhere returns the URL of f under another name of this machine.
func elsewhere(f *fake) string { return strings.Replace(f.URL, "127.0.0.1", "localhost", 1) }

func login(env *backends.Env) {
	env.User = "me"
	env.Secret = func(context.Context, bool) (string, error) { return "secret", nil }
}

func TestHostile_realm(t *testing.T) {
	t.Parallel()
	for name, realm := range map[string]func(evil *fake) string{
		"other host":      func(evil *fake) string { return elsewhere(evil) + "/token" },
		"metadata":        func(*fake) string { return "http://169.254.169.254/token" },
		"not http":        func(*fake) string { return "file:///etc/passwd" },
		"redirected away": func(*fake) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			evil, reg := newFake(t), newFake(t)
			evil.text("/token", `{"token":"x"}`)
			to := realm(evil)
			if to == "" {
				to = reg.URL + "/token"
				reg.on("/token", func(w http.ResponseWriter, req *http.Request) {
					http.Redirect(w, req, evil.URL+"/token", http.StatusTemporaryRedirect)
				})
			}
			reg.on("/v2/a/b/manifests/1", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, to))
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, err := open(t, config{"url": reg.URL}, login).Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat", err, backends.ErrUnauthorized)
			if leaks := evil.leaks(); len(leaks) > 0 {
				t.Errorf("the other host was told %q", leaks)
			}
		})
	}
}

// Whatever goes to another host goes there on the registry's word, also where
// that was a moment ago, and has to look so to the transport, which guards
// private addresses from public registries.
func TestHostile_sentAway(t *testing.T) {
	t.Parallel()
	cdn, reg := newFake(t), newFake(t)
	content := random(1000)
	reg.manifest("a/b", "1", content)
	reg.on("/v2/a/b/blobs/"+ocitest.Digest(content), func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, elsewhere(cdn)+"/blob", http.StatusTemporaryRedirect)
	})
	cdn.on("/blob", func(w http.ResponseWriter, req *http.Request) {
		http.ServeContent(w, req, "", testTime, bytes.NewReader(content))
	})
	var sentBy []string
	b := open(t, config{"url": reg.URL}, func(env *backends.Env) {
		next := env.HTTP.Transport
		env.HTTP.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/blob" {
				first := req
				for first.Response != nil {
					first = first.Response.Request
				}
				sentBy = append(sentBy, "http://"+first.URL.Host)
			}
			return next.RoundTrip(req)
		})
	})
	img := mustStat(t, b, "a/b:1")
	for range 2 { // the second time the place is known
		read(t, b, img, 0, 10)
	}
	if !slices.Equal(sentBy, []string{reg.URL, reg.URL}) {
		t.Errorf("the blob was asked for by the word of %q, want %s", sentBy, reg.URL)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestHostile_challengeAfterRedirect(t *testing.T) {
	t.Parallel()
	evil, reg := newFake(t), newFake(t)
	evil.on("/x", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	reg.on("/v2/a/b/manifests/1", func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, evil.URL+"/x", http.StatusFound)
	})
	_, err := open(t, config{"url": reg.URL}, login).Stat(t.Context(), ref(t, "a/b:1"))
	wantErr(t, "Stat", err, backends.ErrUnauthorized)
	if leaks := evil.leaks(); len(leaks) > 0 {
		t.Errorf("the other host was told %q", leaks)
	}
}

func TestHostile_uploadLocation(t *testing.T) {
	t.Parallel()
	content := []byte("private image")
	for name, begin := range map[string]func(evil *fake) ocitest.Middleware{
		"location": func(evil *fake) ocitest.Middleware {
			return on(http.MethodPost, "/uploads/", 9, status(http.StatusAccepted, "Location", evil.URL+"/upload"))
		},
		"other name": func(evil *fake) ocitest.Middleware {
			return on(http.MethodPost, "/uploads/", 9, status(http.StatusAccepted, "Location", elsewhere(evil)+"/upload"))
		},
		"redirect": func(evil *fake) ocitest.Middleware {
			return on(http.MethodPatch, "/uploads/", 9, status(http.StatusTemporaryRedirect, "Location", evil.URL+"/upload"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			evil := newFake(t)
			reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
			reg.Use(begin(evil))
			_, err := open(t, config{"url": reg.URL}, login).Push(t.Context(), ref(t, "a/b:1"), source(content))
			if err == nil {
				t.Error("the push succeeded")
			}
			if n := len(evil.requests()); n > 0 {
				t.Errorf("the other host got %d requests, telling %q", n, evil.leaks())
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	content := random(100_000)
	reg.PushSIF("a/b", "1", content, nil)
	cdn := newFake(t)
	signature := "1"
	cdn.on("/blob", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Query().Get("sig") != signature {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, req, "", testTime, bytes.NewReader(content))
	})
	reg.Use(on(http.MethodGet, "/blobs/", 1000, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				next.ServeHTTP(w, req)
				return
			}
			http.Redirect(w, req, cdn.URL+"/blob?sig="+signature, http.StatusTemporaryRedirect)
		})
	}))
	b := open(t, config{"url": reg.URL}, login)
	img := mustStat(t, b, "a/b:1")
	part := func(off int64) {
		t.Helper()
		if got := read(t, b, img, off, 1000); !bytes.Equal(got, content[off:off+1000]) {
			t.Error("other bytes came")
		}
	}
	part(5000)
	reg.Forget()
	part(7000)
	part(9000)
	if n := reg.Count(http.MethodGet, "/blobs/"); n != 0 {
		t.Errorf("%d requests to the registry for a blob whose place is known", n)
	}
	signature = "2" // the old link expires
	part(11000)
	if n := reg.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("%d requests to the registry for a new link, want 1", n)
	}
	signature = "3" // while many read
	reg.Forget()
	var readers sync.WaitGroup
	for i := range 16 {
		readers.Go(func() { part(int64(i) * 5000) })
	}
	readers.Wait()
	if n := reg.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("%d requests to the registry for a new link that 16 wait for, want 1", n)
	}
	if leaks := cdn.leaks(); len(leaks) > 0 {
		t.Errorf("the CDN was told %q", leaks)
	}
	cdn.on("/blob", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	_, err := b.Open(t.Context(), img, 0, 10)
	wantErr(t, "Open of what the CDN refuses", err, fs.ErrPermission)
	if err == nil || strings.Contains(err.Error(), "sig=") {
		t.Errorf("error %v tells the signature", err)
	}
}

// A link that has ended already, by a clock that is not the signer's: who reads many
// parts at once does not wait for the others, one after the other.
func TestRedirect_clock(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := random(100_000)
	reg.PushSIF("a/b", "1", content, nil)
	cdn := newFake(t)
	cdn.on("/blob", func(w http.ResponseWriter, req *http.Request) {
		http.ServeContent(w, req, "", testTime, bytes.NewReader(content))
	})
	b := open(t, config{"url": reg.URL})
	img := mustStat(t, b, "a/b:1")
	const readers = 8
	var arrived atomic.Int64
	all := make(chan struct{})
	reg.Use(on(http.MethodGet, "/blobs/", 1000, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if n := arrived.Add(1); n == 1+readers {
				close(all)
			} else if n > 1 {
				select {
				case <-all:
				case <-time.After(10 * time.Second):
					t.Error("one asks for a link, and the others wait")
				}
			}
			at := time.Now().Add(-time.Hour).UTC().Format("20060102T150405Z")
			http.Redirect(w, req, cdn.URL+"/blob?X-Amz-Expires=300&X-Amz-Date="+at, http.StatusTemporaryRedirect)
		})
	}))
	read(t, b, img, 0, 1000)
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			off := int64(i) * 5000
			if got := read(t, b, img, off, 1000); !bytes.Equal(got, content[off:off+1000]) {
				t.Error("other bytes came")
			}
		})
	}
	group.Wait()
}

func TestHostile_blob(t *testing.T) {
	t.Parallel()
	content := random(10_000)
	whole := func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }
	partial := func(header string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content)
		}
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"ranges ignored":   {whole, nil},
		"too much":         {partial("bytes 100-199/10000"), nil}, // but its body has more
		"wrong begin":      {partial("bytes 0-199/10000"), backends.ErrBadAnswer},
		"beyond":           {partial("bytes 100-299/10000"), backends.ErrBadAnswer},
		"other size":       {partial("bytes 100-199/9999"), backends.ErrBadAnswer},
		"no Content-Range": {partial(""), backends.ErrBadAnswer},
		"overflow":         {partial("bytes 100-99999999999999999999/10000"), backends.ErrBadAnswer},
		"no content":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, backends.ErrBadAnswer},
		"other length":     {func(w http.ResponseWriter, _ *http.Request) { w.Write(content[:300]) }, backends.ErrBadAnswer},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			w.Write(content)
		}, backends.ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.manifest("a/b", "1", content)
			reg.on("/v2/a/b/blobs/"+ocitest.Digest(content), tt.answer)
			b := open(t, config{"url": reg.URL})
			img := mustStat(t, b, "a/b:1")
			body, err := b.Open(t.Context(), img, 100, 100)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Open: error %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			body.Close()
			got := read(t, b, img, 100, 100)
			if len(got) != 100 || name == "ranges ignored" && !bytes.Equal(got, content[100:200]) {
				t.Errorf("read %d bytes, not the 100 asked for", len(got))
			}
		})
	}
}

func TestHostile_manifest(t *testing.T) {
	t.Parallel()
	zero := "sha256:" + strings.Repeat("0", 64)
	layer := func(digest, size string) string {
		return fmt.Sprintf(`{"layers":[{"mediaType":%q,"digest":%q,"size":%s}]}`, ocitest.SIFLayer, digest, size)
	}
	itself := fmt.Sprintf(`{"manifests":[{"digest":%q,"platform":{"os":"linux","architecture":"amd64"}}]}`, zero)
	for name, tt := range map[string]struct {
		text string
		want error
	}{
		"not JSON":         {"<html>", backends.ErrBadAnswer},
		"empty":            {"", backends.ErrBadAnswer},
		"too large":        {`{"layers":[],"x":"` + strings.Repeat("x", 5<<20) + `"}`, backends.ErrBadAnswer},
		"deep":             {strings.Repeat(`{"a":`, 1<<18) + "1" + strings.Repeat("}", 1<<18), backends.ErrBadAnswer},
		"two meanings":     {`{"manifests":[{}],"layers":[{}]}`, backends.ErrBadAnswer},
		"odd digest":       {layer("sha256:../../etc/passwd", "1"), backends.ErrBadAnswer},
		"short digest":     {layer("sha256:abcd", "1"), backends.ErrBadAnswer},
		"md5":              {layer("md5:d41d8cd98f00b204e9800998ecf8427e", "1"), backends.ErrBadAnswer},
		"negative":         {layer(zero, "-1"), backends.ErrBadAnswer},
		"huge":             {layer(zero, "1e30"), backends.ErrBadAnswer},
		"index of nothing": {`{"manifests":[{"digest":"x","platform":{"architecture":"amd64"}}]}`, backends.ErrBadAnswer},
		"index to itself":  {itself, backends.ErrCorrupt}, // its digest cannot be right
		"nothing":          {`{}`, backends.ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.text("/v2/a/b/manifests/1", tt.text)
			reg.text("/v2/a/b/manifests/"+zero, tt.text)
			_, err := open(t, config{"url": reg.URL}).Stat(t.Context(), ref(t, "a/b:1"))
			wantErr(t, "Stat", err, tt.want)
		})
	}
	t.Run("other digest", func(t *testing.T) {
		t.Parallel()
		reg := newFake(t)
		reg.text("/v2/a/b/manifests/1", layer(zero, "1"), "Docker-Content-Digest", zero)
		reg.text("/v2/a/b/manifests/"+zero, layer(zero, "1"))
		b := open(t, config{"url": reg.URL})
		for _, name := range []string{"a/b:1", "a/b:1@" + zero} {
			_, err := b.Stat(t.Context(), ref(t, name))
			wantErr(t, name, err, backends.ErrCorrupt)
		}
	})
}

func TestHostile_annotations(t *testing.T) {
	t.Parallel()
	reg := newFake(t)
	many := strings.Builder{}
	for i := range 5000 {
		fmt.Fprintf(&many, `"key%04d":"value",`, i)
	}
	reg.text("/v2/a/b/manifests/1", fmt.Sprintf(`{"layers":[{"mediaType":%q,"digest":"sha256:%064d","size":1}],"annotations":{%s"big":%q}}`,
		ocitest.SIFLayer, 0, many.String(), strings.Repeat("x", 1<<20)))
	img := mustStat(t, open(t, config{"url": reg.URL}), "a/b:1")
	if len(img.Labels) != 64 || img.Labels["big"] != "" || img.Labels["key0000"] != "value" {
		t.Errorf("%d labels were kept", len(img.Labels))
	}
}

func TestList_pages(t *testing.T) {
	t.Parallel()
	page := func(reg *fake, path, key, link string, pages map[string]string) {
		reg.on(path, func(w http.ResponseWriter, req *http.Request) {
			last := req.URL.Query().Get("last")
			if next := link + last; pages[last+"x"] != "" {
				w.Header().Set("Link", fmt.Sprintf(`<%s?n=1&last=%sx>; rel="next"`, strings.TrimSuffix(next, last), last))
			}
			fmt.Fprintf(w, `{%q:%s}`, key, pages[last])
		})
	}
	reg := newFake(t)
	page(reg, "/v2/_catalog", "repositories", "/v2/_catalog", map[string]string{"": `["a/b","a/b"]`, "x": `[]`, "xx": `null`, "xxx": `["a/c"]`})
	page(reg, "/v2/a/b/tags/list", "tags", reg.URL+"/v2/a/b/tags/list", map[string]string{"": `["1","1"]`, "x": `["2"]`, "xx": `["../evil","sha256-` + strings.Repeat("0", 64) + `.sig"]`})
	page(reg, "/v2/a/c/tags/list", "tags", "list", map[string]string{"": `null`, "x": `["3"]`})
	if got, want := names(t, open(t, config{"url": reg.URL}), "a"), []string{"a/b:1", "a/b:2", "a/c:3"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
	for name, link := range map[string]func(i int) string{
		"circle":      func(i int) string { return fmt.Sprintf("</v2/_catalog?last=%d>; rel=next", i%3) },
		"endless":     func(i int) string { return fmt.Sprintf("</v2/_catalog?last=%d>; rel=next", i) },
		"other host":  func(int) string { return "<http://localhost:1/v2/_catalog>; rel=next" },
		"longer host": func(int) string { return "<x:.evil.example/v2/_catalog>; rel=next" },
		"after user":  func(int) string { return "<x:@localhost:1/v2/_catalog>; rel=next" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, i := newFake(t), 0
			reg.on("/v2/_catalog", func(w http.ResponseWriter, _ *http.Request) {
				i++
				w.Header().Set("Link", link(i))
				fmt.Fprint(w, `{"repositories":["a/b"]}`)
			})
			_, err := backends.Collect(open(t, config{"url": reg.URL}).List(t.Context(), ""))
			wantErr(t, "List", err, backends.ErrBadAnswer)
			if i > 1001 {
				t.Errorf("%d pages were read", i)
			}
		})
	}
}

func TestList_refused(t *testing.T) {
	t.Parallel()
	reg := newFake(t)
	reg.text("/v2/", "{}")
	for code, want := range map[int]error{
		401: errors.ErrUnsupported, 403: errors.ErrUnsupported, 404: errors.ErrUnsupported, 405: errors.ErrUnsupported,
		429: backends.ErrRateLimited, 500: backends.ErrUnavailable,
	} {
		reg.on("/v2/_catalog", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		_, err := backends.Collect(open(t, config{"url": reg.URL}).List(t.Context(), ""))
		wantErr(t, fmt.Sprintf("List after %d", code), err, want)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("List after %d: %v is two things", code, err)
		}
	}
}

// The token service that refuses the catalogue refuses nothing else: what is named opens.
func TestList_tokenRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403} {
		reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true, AnonymousPull: true, CatalogStatus: status})
		reg.PushSIF("a/b", "1", []byte("x"), nil)
		b := open(t, config{"url": reg.URL})
		_, err := backends.Collect(b.List(t.Context(), ""))
		wantErr(t, fmt.Sprintf("List where a token is refused with %d", status), err, errors.ErrUnsupported)
		if got := read(t, b, mustStat(t, b, "a/b:1"), 0, -1); string(got) != "x" {
			t.Errorf("after %d: %q", status, got)
		}
	}
}

// Some registries, and proxies before them, refuse a HEAD of what they have.
func TestStat_headRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 405} {
		reg := ocitest.Start(t, ocitest.Options{})
		reg.PushSIF("a/b", "1", []byte("x"), nil)
		reg.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodHead {
					w.WriteHeader(status)
					return
				}
				next.ServeHTTP(w, req)
			})
		})
		b := open(t, config{"url": reg.URL})
		img := mustStat(t, b, "a/b:1")
		for _, name := range []string{"a/b:1", "a/b:1", "a/b:1@" + img.Version, "a/b@" + img.Digest} {
			if got := read(t, b, mustStat(t, b, name), 0, -1); string(got) != "x" {
				t.Errorf("%s where HEAD is answered with %d: %q", name, status, got)
			}
		}
		_, err := b.Stat(t.Context(), ref(t, "a/b:2"))
		wantErr(t, "a tag that is not there", err, fs.ErrNotExist)
	}
}

func TestErrors_codes(t *testing.T) {
	t.Parallel()
	reg := newFake(t)
	b := open(t, config{"url": reg.URL})
	for _, tt := range []struct {
		status     int
		code, text string
		want       error
	}{
		{403, "TOOMANYREQUESTS", "You have reached your pull rate limit", backends.ErrRateLimited},
		{400, "UNSUPPORTED", "not here", errors.ErrUnsupported},
		{401, "DENIED", "requested access is denied", fs.ErrPermission},
		{404, "MANIFEST_UNKNOWN", "evil \x1b[31m\nmessage", fs.ErrNotExist},
	} {
		reg.on("/v2/a/b/manifests/1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(tt.status)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%s}]}`, tt.code, strings.ReplaceAll(fmt.Sprintf("%q", tt.text), `\x1b`, `\u001b`))
		})
		_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
		wantErr(t, tt.code, err, tt.want)
		if err == nil || !strings.Contains(err.Error(), tt.code) || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("error %q, want one with %s and without control characters", err, tt.code)
		}
		if tt.want == backends.ErrRateLimited && backends.RetryAfter(err).Seconds() != 30 { //nolint:errorlint // the sentinel itself
			t.Errorf("RetryAfter(%v) = %v", err, backends.RetryAfter(err))
		}
	}
}

// Container images of thousands of layers: what is remembered of them has
// an end.
func TestHostile_layers(t *testing.T) {
	reg := newFake(t)
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%064x","size":1}`
	var layers strings.Builder
	for i := range 8_000 {
		fmt.Fprintf(&layers, ","+layer, i)
	}
	const images = 12
	for i := range images {
		reg.text(fmt.Sprintf("/v2/a/b/manifests/%d", i), fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":"sha256:%064x","size":2},"layers":[`,
			"application/vnd.oci.image.config.v1+json", 1<<40+i)+layers.String()[1:]+"]}")
	}
	b := open(t, config{"url": reg.URL})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range images {
		mustStat(t, b, fmt.Sprintf("a/b:%d", i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(b)
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 100<<20 {
		t.Errorf("%d images are remembered in %d bytes", images, held)
	}
}
