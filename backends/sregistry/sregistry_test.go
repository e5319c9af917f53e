// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// A remote is all that this backend can do.
type remote interface { //nolint:interfacebloat // only a sum of others
	backends.Backend
	backends.Lister
	backends.Searcher
	backends.Pusher
	backends.Deleter
}

// newRemote opens the backend on address. Without a token it only reads.
func newRemote(t *testing.T, address string, tokens ...string) remote {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	return newRemoteVia(t, hc, address, tokens...)
}

// newRemoteVia hands out one token after the other, each time a fresh one is wanted.
func newRemoteVia(t *testing.T, hc *http.Client, address string, tokens ...string) remote {
	t.Helper()
	env := backends.Env{Remote: "lab", Type: "sregistry", HTTP: hc, Arch: "amd64", Config: map[string]any{"url": address}}
	if len(tokens) > 0 {
		env.User = sregistrytest.User
		env.Secret = backendtest.Tokens(tokens...)
	}
	b, err := sregistry.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return b.(remote)
}

// bytesOf returns n bytes that do not repeat.
func bytesOf(seed string, n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%s %d %x\n", seed, i, i*i)
	}
	return b.Bytes()[:n]
}

// Presigned URLs are used again, and fetched anew when they have expired. The
// store, which refuses a second login, sees none.
func TestOpen_library(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	content := bytesOf("blue", 300_000)
	srv.Add(sregistrytest.Image{Collection: "pusheen", Name: "asaurus", Tag: "blue", Content: content})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	img := backendtest.Stat(t, b, "pusheen/asaurus:blue")
	if img.Size != int64(len(content)) {
		t.Errorf("size %d, want %d", img.Size, len(content))
	}
	before := srv.Count("GET /")
	for i := range int64(20) {
		backendtest.WantRead(t, b, img, i*1000, 5000, content[i*1000:i*1000+5000])
	}
	if n := srv.Count("GET /") - before; n != 0 {
		t.Errorf("%d requests to the server for parts of what was just looked at", n)
	}
	srv.Expire()
	before = srv.Count("GET /v1/imagefile/")
	backendtest.WantRead(t, b, img, 7, 9, content[7:16])
	backendtest.WantRead(t, b, img, 100, -1, content[100:])
	if n := srv.Count("GET /v1/imagefile/") - before; n != 1 {
		t.Errorf("the presigned URL was fetched %d times after it expired, want once", n)
	}
	if n := srv.Count("GET /containers/"); n != 0 {
		t.Errorf("%d downloads from the old store", n)
	}
}

func TestOpen_libraryReplaced(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("one", 5000)})
	b := newRemote(t, srv.URL)
	img := backendtest.Stat(t, b, "c/i:1")
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("two", 5000)})
	backendtest.WantRead(t, b, img, 0, 100, bytesOf("one", 100)) // its URL is still good
	srv.Expire()
	if _, err := backendtest.Read(t, b, img, 0, 100); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("reading what was replaced: %v, want ErrChanged", err)
	}
}

// Each download from the old store counts, so there is one for each Open that
// can be answered, and none to find things out.
func TestOpen_old(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{WeeklyLimit: 3})
	content := bytesOf("old", 5<<20)
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: content, Old: true, MD5: true})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	img := backendtest.Stat(t, b, "c/i:1")
	if img.Size != -1 || img.Digest != fmt.Sprintf("md5:%x", md5.Sum(content)) {
		t.Errorf("Stat = %+v, want no size and the MD5", img)
	}
	if _, err := backendtest.Read(t, b, img, 5_000_000, 10); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a part far behind: %v, want ErrUnsupported", err)
	}
	if n := srv.Count("GET /containers/"); n != 0 {
		t.Errorf("%d downloads to find out that there are no ranges", n)
	}
	backendtest.WantRead(t, b, img, 0, -1, content)
	if img = backendtest.Stat(t, b, "c/i:1"); img.Size != int64(len(content)) {
		t.Errorf("size %d after the image was read", img.Size)
	}
	backendtest.WantRead(t, b, img, 1_000_000, 5000, content[1_000_000:1_005_000])
	backendtest.WantRead(t, b, img, 0, 64, content[:64])
	if n := srv.Count("GET /containers/"); n != 3 {
		t.Errorf("%d downloads, want 3", n)
	}
	if n := srv.Count("GET /v1/imagefile/"); n != 0 {
		t.Errorf("%d requests to the library for an image with an MD5", n)
	}
	_, err := backendtest.Read(t, b, img, 0, -1)
	if !errors.Is(err, backends.ErrRateLimited) {
		t.Errorf("over the quota: %v, want ErrRateLimited", err)
	}
	if err != nil && strings.Contains(err.Error(), "secretsecret") {
		t.Errorf("the error tells the download's secret: %v", err)
	}
}

// An image with a SHA-256 may be in either store: the other is asked once.
func TestOpen_oldFound(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	content := bytesOf("old", 5000)
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: content, Old: true})
	b := newRemote(t, srv.URL)
	img := backendtest.Stat(t, b, "c/i:1")
	for range 3 {
		backendtest.WantRead(t, b, img, 0, -1, content)
		img = backendtest.Stat(t, b, "c/i:1")
	}
	if n := srv.Count("GET /v1/imagefile/"); n != 1 {
		t.Errorf("the library was asked %d times for what it does not have", n)
	}
}

// What was not looked at before is found in the old store as well, whatever the
// library says: that it does not have it, or that it is broken.
func TestOpen_fallback(t *testing.T) {
	t.Parallel()
	content := bytesOf("old", 5000)
	for name, status := range map[string]int{"absent": 404, "unsupported": 405, "broken": 500} {
		for _, old := range []bool{true, false} {
			srv := sregistrytest.Start(t, sregistrytest.Options{})
			srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: content, Old: old})
			hc := backends.NewHTTPClient(backends.HTTPOptions{})
			t.Cleanup(hc.CloseIdleConnections)
			hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				if !strings.HasPrefix(req.URL.Path, "/v1/imagefile/") {
					return next.RoundTrip(req)
				}
				return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
			}}
			got, err := backendtest.Read(t, newRemoteVia(t, hc, srv.URL), backends.Image{Ref: backendtest.Ref(t, "c/i:1"), Size: -1}, 0, -1)
			want := map[bool]error{true: fs.ErrNotExist, false: backends.ErrUnavailable}[status < 500]
			if old && (err != nil || !bytes.Equal(got, content)) || !old && !errors.Is(err, want) {
				t.Errorf("library %s, in the old store %v: %d bytes, %v", name, old, len(got), err)
			}
		}
	}
}

// The address of a download holds the collection's secret.
func TestOpen_secret(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	srv := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"id":1,"name":"i","tag":"1","version":"%032d","image":"%s/containers/1/download/the-secret"}`, 0, dead.URL)
	})
	b := newRemote(t, srv)
	img := backendtest.Stat(t, b, "c/i:1")
	if _, err := backendtest.Read(t, b, img, 0, -1); !errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "the-secret") {
		t.Errorf("a download that cannot be reached: %v", err)
	}
	if strings.Contains(img.URL, "secret") {
		t.Errorf("the image's URL is %s", img.URL)
	}
}

// The answers that are numbers, and what else a server says with status 200.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]error{
		"429":           backends.ErrRateLimited,
		" 429\n":        backends.ErrRateLimited,
		"404":           fs.ErrNotExist,
		"403":           fs.ErrPermission,
		"401":           backends.ErrUnauthorized,
		"400":           backends.ErrBadAnswer,
		"503":           backends.ErrUnavailable,
		"200":           backends.ErrBadAnswer,
		"":              backends.ErrBadAnswer,
		"null":          backends.ErrBadAnswer,
		"{}":            backends.ErrBadAnswer,
		`{"id":1}`:      backends.ErrBadAnswer,
		"[]":            backends.ErrBadAnswer,
		"<html></html>": backends.ErrBadAnswer,
		`"Not found"`:   backends.ErrBadAnswer,
		`{"id":1,"name":"other","tag":"1","version":""}`: backends.ErrBadAnswer,
		`{"id":{},"name":"i","tag":"1"}`:                 backends.ErrBadAnswer,
		strings.Repeat(`{"id":`, 20_000):                 backends.ErrBadAnswer,
		`{"id":"` + strings.Repeat("x", 5<<20) + `"}`:    backends.ErrBadAnswer,
	} {
		t.Run(fmt.Sprintf("%.12q", body), func(t *testing.T) {
			t.Parallel()
			srv := answering(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
			if img, err := newRemote(t, srv).Stat(t.Context(), backendtest.Ref(t, "c/i:1")); !errors.Is(err, want) {
				t.Errorf("Stat = %+v, %v, want %v", img, err, want)
			}
		})
	}
}

// answering is a server that answers everything with h.
func answering(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		content := bytesOf("private", 5000)
		srv.Add(sregistrytest.Image{Collection: "private", Name: "i", Tag: "1", Content: content, Private: true, Old: old, MD5: old})
		b := newRemote(t, srv.URL, sregistrytest.Token)
		for range 3 {
			backendtest.WantRead(t, b, backendtest.Stat(t, b, "private/i:1"), 0, -1, content)
		}
		// 3 Stats and at most 3 Opens, all signed at once but for the first.
		if n := srv.Count("GET /api/container/"); n > 7 {
			t.Errorf("%d requests for manifests: the refusal is not remembered", n)
		}
		if _, err := newRemote(t, srv.URL).Stat(t.Context(), backendtest.Ref(t, "private/i:1")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without a token: %v, want fs.ErrPermission", err)
		}
		if _, err := newRemote(t, srv.URL, "wrong").Stat(t.Context(), backendtest.Ref(t, "private/i:1")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("with a wrong token: %v, want fs.ErrPermission", err)
		}
		_, err := backends.Collect(b.List(t.Context(), "private"))
		if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("List(private): %v, want errors.ErrUnsupported", err)
		}
		// That it is there is known by now, if only here.
		if got := backendtest.Names(t, b, ""); !slices.Contains(got, "private/") {
			t.Errorf("List of the root: %q", got)
		}
		if got := backendtest.Names(t, newRemote(t, srv.URL), ""); len(got) != 0 {
			t.Errorf("List of the root by who has no token: %q", got)
		}
	}
}

// A clock that is off, an hour that ends: signed once more for the server's hour.
func TestSigned_clock(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-26 * time.Hour, -time.Hour, time.Hour, 5 * time.Hour} {
		srv := sregistrytest.Start(t, sregistrytest.Options{Clock: off, NoLibrary: true})
		srv.Add(sregistrytest.Image{Collection: "private", Name: "i", Tag: "1", Content: bytesOf("x", 500), Private: true})
		b := newRemote(t, srv.URL, sregistrytest.Token)
		img := backendtest.Stat(t, b, "private/i:1")
		if err := b.Delete(t.Context(), img); err != nil {
			t.Errorf("clock off by %v: Delete: %v", off, err)
		}
		if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:2"), backendtest.Source(bytesOf("y", 500))); err != nil {
			t.Errorf("clock off by %v: Push: %v", off, err)
		}
	}
}

func TestSigned_freshToken(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("x", 500)})
	b := newRemote(t, srv.URL, "stale", sregistrytest.Token)
	if err := b.Delete(t.Context(), backendtest.Stat(t, b, "c/i:1")); err != nil {
		t.Errorf("Delete with a token that was replaced: %v", err)
	}
	b = newRemote(t, srv.URL, "stale", sregistrytest.Token)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:2"), backendtest.Source(bytesOf("y", 500))); err != nil {
		t.Errorf("Push with a token that was replaced: %v", err)
	}
	b = newRemote(t, srv.URL, "wrong")
	if err := b.Delete(t.Context(), backendtest.Stat(t, b, "c/i:2")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Delete with a wrong token: %v, want fs.ErrPermission", err)
	}
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:3"), backendtest.Source(bytesOf("y", 500))); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("Push with a wrong token: %v, want ErrUnauthorized", err)
	}
	if _, err := newRemote(t, srv.URL).Push(t.Context(), backendtest.Ref(t, "c/i:3"), backendtest.Source(bytesOf("y", 500))); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("Push without a token: %v, want ErrUnauthorized", err)
	}
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	content := bytesOf("x", 500)
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: content, Frozen: true})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	if err := b.Delete(t.Context(), backendtest.Stat(t, b, "c/i:1")); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("Delete of a frozen image: %v", err)
	}
	src := backendtest.Source(bytesOf("y", 500))
	src.Replaces = backends.ReplaceAny
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("Push over a frozen image: %v", err)
	}
	if !bytes.Equal(srv.Content("c", "i", "1"), content) {
		t.Error("the frozen image is another one")
	}
}

func TestList_fewRequests(t *testing.T) {
	t.Parallel()
	for maxPage, want := range map[int]int{0: 1, 10: 10} {
		srv := sregistrytest.Start(t, sregistrytest.Options{MaxPage: maxPage})
		for i := range 10_000 {
			srv.Add(sregistrytest.Image{Collection: fmt.Sprintf("col%d", i%100), Name: fmt.Sprintf("i%d", i), Tag: "1"})
		}
		b := newRemote(t, srv.URL)
		root, err := backends.Collect(b.List(t.Context(), ""))
		if err != nil || len(root) != 100 {
			t.Fatalf("%d collections, %v", len(root), err)
		}
		found := 0
		for _, e := range root {
			images, err := backends.Collect(b.List(t.Context(), e.Collection))
			if err != nil {
				t.Fatal(err)
			}
			found += len(images)
		}
		if n := len(srv.Requests()); n != want || found != 10_000 {
			t.Errorf("%d images by %d requests, want 10000 by %d", found, n, want)
		}
	}
}

// What is on its way, and names that cannot be, are not shown.
func TestList_hostile(t *testing.T) {
	t.Parallel()
	srv := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"count":9,"next":null,"results":[
			{"id":1,"name":"good","containers":[{"name":"i","tag":"1"},{"name":"i","tag":"1"},{"name":"i","tag":"DUMMY-7"},
				{"name":"../../etc","tag":"passwd"},{"name":"i","tag":"a/b"},{"name":"","tag":"1"},{"name":"i","tag":""},
				{"name":"a//b","tag":"1"},{"name":"x\u0000","tag":"1"},{"name":"i","tag":"\u001b[31m"}]},
			{"id":2,"name":"..","containers":[]},{"id":3,"name":"a/b","containers":[]},{"id":4,"name":"","containers":null},
			{"id":1,"name":"good","containers":[{"name":"other","tag":"1"}]},{"id":5,"name":"-rf","containers":[]}]}`)
	})
	b := newRemote(t, srv)
	root, err := backends.Collect(b.List(t.Context(), ""))
	if diff := cmp.Diff([]backends.Entry{{Collection: "good"}}, root); diff != "" || err != nil {
		t.Errorf("List: %v (-want +got):\n%s", err, diff)
	}
	images, err := backends.Collect(b.List(t.Context(), "good"))
	if err != nil || len(images) != 1 || images[0].Image.Ref != backendtest.Ref(t, "good/i:1") {
		t.Errorf("List(good) = %v, %v, want good/i:1 alone", images, err)
	}
}

func TestList_endless(t *testing.T) {
	t.Parallel()
	asked := 0
	pages := map[string]func(n int) string{
		"itself":   func(int) string { return "?limit=100" },
		"for ever": func(n int) string { return fmt.Sprintf("?limit=100&offset=%d", n) },
	}
	for name, next := range pages {
		asked = 0
		srv := answering(t, func(w http.ResponseWriter, r *http.Request) {
			asked++
			fmt.Fprintf(w, `{"next":"http://elsewhere.example/api/collections/%s","results":[]}`, next(asked))
		})
		_, err := backends.Collect(newRemote(t, srv).List(t.Context(), ""))
		if !errors.Is(err, backends.ErrBadAnswer) || asked > 1001 {
			t.Errorf("pages that link to %s: %v after %d requests", name, err, asked)
		}
	}
}

// A page that never ends is refused when it is too large, with no more memory
// than that.
func TestList_huge(t *testing.T) {
	t.Parallel()
	srv := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"next":null,"results":[`)
		for row := strings.Repeat(`{"name":"a","containers":[]},`, 4000); ; {
			if _, err := io.WriteString(w, row); err != nil {
				return
			}
		}
	})
	if _, err := backends.Collect(newRemote(t, srv).List(t.Context(), "")); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("List of an endless page: %v, want ErrBadAnswer", err)
	}
}

func TestStat_viewLimit(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{ViewLimit: 2})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("i", 700), Old: true, MD5: true})
	b := newRemote(t, srv.URL, sregistrytest.Token)
	for i := range 4 {
		_, err := b.Stat(t.Context(), backendtest.Ref(t, "c/i:1"))
		if i < 2 && err != nil {
			t.Errorf("request %d of 2: %v", i+1, err)
		}
		if i >= 2 && (!errors.Is(err, backends.ErrRateLimited) || errors.Is(err, fs.ErrPermission) || backends.RetryAfter(err) <= 0 ||
			!strings.Contains(err.Error(), "VIEW_RATE_LIMIT")) {
			t.Errorf("request %d of 2: %v, want to be told of the limit", i+1, err)
		}
	}
	if n := srv.Count("GET /api/container/"); n != 4 {
		t.Errorf("%d requests for 4 questions: a page that refuses everybody wants no signature", n)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	for _, img := range []sregistrytest.Image{
		{Collection: "vsoch", Name: "hello", Tag: "1", Labels: map[string]string{"maintainer": "vanessa", "os": "alpine"}},
		{Collection: "vsoch", Name: "hello", Tag: "2"},
		{Collection: "vsoch", Name: "tacos", Tag: "1", Labels: map[string]string{"os": "ubuntu"}},
		{Collection: "lab", Name: "hello-world", Tag: "1", Labels: map[string]string{"maintainer": "vanessa"}},
		{Collection: "org", Name: "team/hello", Tag: "3"},
		{Collection: "secret", Name: "hello", Tag: "1", Private: true},
	} {
		srv.Add(img)
	}
	b := newRemote(t, srv.URL)
	found := func(seq iter.Seq2[backends.Image, error]) []string {
		images, err := backends.Collect(seq)
		if err != nil {
			t.Error(err)
		}
		names := []string{}
		for _, img := range images {
			names = append(names, img.Ref.String())
		}
		slices.Sort(names)
		return names
	}
	for query, want := range map[string][]string{
		// Whole names, and those in private collections too: so the server does it.
		"hello":              {"secret/hello:1", "vsoch/hello:1", "vsoch/hello:2"},
		"team/hello":         {},
		"HELLO":              {"secret/hello:1", "vsoch/hello:1", "vsoch/hello:2"},
		"vsoch":              {"vsoch/hello:1", "vsoch/hello:2", "vsoch/tacos:1"},
		"vsoch/":             {"vsoch/hello:1", "vsoch/hello:2", "vsoch/tacos:1"},
		"vsoch/hello":        {"vsoch/hello:1", "vsoch/hello:2"},
		"vsoch/hello:2":      {"vsoch/hello:2"},
		"hello SECRET":       {"secret/hello:1"},
		"hello nothing":      {},
		"no?such#thing/%2":   {},
		"maintainer=":        {"lab/hello-world:1", "vsoch/hello:1"},
		"=ubuntu":            {"vsoch/tacos:1"},
		"os=alpine":          {"vsoch/hello:1"},
		"os=none":            {},
		"maintainer=vanessa": {"lab/hello-world:1", "vsoch/hello:1"},
	} {
		if diff := cmp.Diff(want, found(b.Search(t.Context(), query))); diff != "" {
			t.Errorf("Search(%q) (-want +got):\n%s", query, diff)
		}
	}
	if _, err := backends.Collect(b.Search(t.Context(), " ")); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Search for nothing: %v", err)
	}
}

// The version finds its tag, in either way of writing.
func TestStat_version(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("one", 500)})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "2", Content: bytesOf("two", 600)})
	srv.Add(sregistrytest.Image{Collection: "c", Name: "new", Tag: "1", Content: bytesOf("new", 600), NoVersion: true})
	b := newRemote(t, srv.URL)
	two := backendtest.Stat(t, b, "c/i:2")
	for _, version := range []string{two.Version, strings.Replace(two.Version, ":", ".", 1)} {
		for _, tag := range []string{"", "1", "2", "none"} {
			img, err := b.Stat(t.Context(), backends.Ref{Collection: "c", Name: "i", Tag: tag, Version: version})
			if tag == "none" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a tag that is not there: %v", err)
				}
			} else if err != nil || img.Version != two.Version || img.Ref.Tag != "2" {
				t.Errorf("Stat(:%s@%s) = %+v, %v", tag, version, img, err)
			}
		}
	}
	if img := backendtest.Stat(t, b, "c/new:1"); img.Version == "" || img.Digest != "" {
		t.Errorf("an image that nothing is computed of: %+v", img)
	}
}

// A redirect from https leads to https, or nowhere.
func TestOpen_downgrade(t *testing.T) {
	t.Parallel()
	reached := false
	plain := answering(t, func(http.ResponseWriter, *http.Request) { reached = true })
	sha := strings.Repeat("0", 64)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/imagefile/") {
			http.Redirect(w, r, plain+"/object?X-Amz-Signature=1", http.StatusFound)
			return
		}
		fmt.Fprintf(w, `{"id":1,"name":"i","tag":"1","version":"sha256.%s","image":"%s/x"}`, sha, plain)
	}))
	t.Cleanup(srv.Close)
	hc := backends.NewHTTPClient(backends.HTTPOptions{TLS: srv.Client().Transport.(*http.Transport).TLSClientConfig})
	t.Cleanup(hc.CloseIdleConnections)
	b := newRemoteVia(t, hc, srv.URL, sregistrytest.Token)
	img := backends.Image{Ref: backendtest.Ref(t, "c/i:1"), Version: "sha256:" + sha, Size: -1}
	if _, err := backendtest.Read(t, b, img, 0, -1); !errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "X-Amz") {
		t.Errorf("a redirect to http: %v", err)
	}
	if reached {
		t.Error("the redirect was followed")
	}
}
