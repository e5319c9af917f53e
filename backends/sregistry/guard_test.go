// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// configured opens the backend as the user, with more settings in pairs.
func configured(t *testing.T, url string, settings ...string) remote {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	config := map[string]any{"url": url}
	for i := 0; i+1 < len(settings); i += 2 {
		config[settings[i]] = settings[i+1]
	}
	b, err := open(t.Context(), backends.Env{Remote: "lab", HTTP: hc, Arch: "amd64", Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return b.(remote)
}

// The library API has one tag of a name for all collections: setting it would delete
// the image of another collection, also a private one of somebody else.
func TestPush_otherCollection(t *testing.T) {
	t.Parallel()
	for _, other := range []sregistrytest.Image{
		{Collection: "alpha", Name: "x", Tag: "1"}, {Collection: "alpha", Name: "x", Tag: "1", Old: true},
		{Collection: "hers", Name: "x", Tag: "1", Foreign: true, Private: true},
	} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		other.Content = bytesOf("other", 700)
		srv.Add(other)
		content := bytesOf("mine", 800)
		b := configured(t, srv.URL)
		img, err := b.Push(t.Context(), backendtest.Ref(t, "beta/x:1"), backendtest.Source(content))
		if err != nil {
			t.Fatalf("%s: %v", other.Collection, err)
		}
		backendtest.WantRead(t, b, img, 0, -1, content)
		if !bytes.Equal(srv.Content(other.Collection, "x", "1"), other.Content) {
			t.Errorf("%s/x:1 is gone", other.Collection)
		}
		_, err = configured(t, srv.URL, "push_by", "library").Push(t.Context(), backendtest.Ref(t, "gamma/x:1"), backendtest.Source(content))
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "/x:1") || !strings.Contains(err.Error(), `push_by = "upload"`) {
			t.Errorf("Push by the library API alone: %v, want a refusal that names the other image", err)
		}
		if !bytes.Equal(srv.Content(other.Collection, "x", "1"), other.Content) || !bytes.Equal(srv.Content("beta", "x", "1"), content) {
			t.Error("the refused push changed an image")
		}
	}
}

// It comes while the bytes are on their way.
func TestPush_otherCollectionMeanwhile(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/_complete") {
			srv.Add(sregistrytest.Image{Collection: "alpha", Name: "x", Tag: "1", Content: bytesOf("other", 700)})
		}
		return next.RoundTrip(req)
	}}
	b := newRemoteVia(t, hc, srv.URL, sregistrytest.Token)
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "beta/x:1"), backendtest.Source(bytesOf("mine", 800))); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Push = %v, want a refusal", err)
	}
	if !bytes.Equal(srv.Content("alpha", "x", "1"), bytesOf("other", 700)) {
		t.Error("alpha/x:1 is gone")
	}
}

// The same bytes in the old way, with leave to replace: sent again the server would
// lose them.
func TestPush_sameBytes(t *testing.T) {
	t.Parallel()
	for _, worked := range []bool{false, true} {
		for _, way := range []string{"upload", "library"} {
			srv := sregistrytest.Start(t, sregistrytest.Options{})
			b := configured(t, srv.URL, "push_by", way)
			src := backendtest.Source(bytesOf("x", 900))
			for range 3 {
				img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
				if err != nil {
					t.Fatalf("%s: %v", way, err)
				}
				backendtest.WantRead(t, b, img, 0, -1, bytesOf("x", 900))
				src.Replaces = backends.ReplaceAny
				if worked {
					srv.Work()
				}
			}
			if n := srv.Count("POST /upload") + srv.Count("POST /v1/tags/"); n != 1 {
				t.Errorf("%s: sent %d times", way, n)
			}
		}
	}
}

// Another client has made the server lose them.
func TestPush_lostBytes(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	src := backendtest.Source(bytesOf("x", 900))
	srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("x", 900), Old: true, MD5: true})
	srv.Lose("c", "i", "1")
	src.Replaces = backends.ReplaceAny
	b := configured(t, srv.URL, "push_by", "upload")
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("Push over a name without bytes: %v, want to be told what to do", err)
	}
	if err := b.Delete(t.Context(), backendtest.Stat(t, b, "c/i:1")); err != nil {
		t.Fatal(err)
	}
	img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	backendtest.WantRead(t, b, img, 0, -1, bytesOf("x", 900))
}

// New collections are private, whatever the server would make and whichever way the
// image is sent; those that are there stay what they are.
func TestPush_private(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opts     sregistrytest.Options
		settings []string
		want     bool
	}{
		{want: true},
		{settings: []string{"push_by", "upload"}, want: true},
		{settings: []string{"push_by", "library"}, want: true},
		{opts: sregistrytest.Options{PrivateOnly: true}, want: true},
		{opts: sregistrytest.Options{PrivateOnly: true}, settings: []string{"push_by", "upload"}, want: true},
		{settings: []string{"new_collections", "public"}},
		{settings: []string{"new_collections", "public", "push_by", "upload"}},
		// Nobody can say it to such a server: it makes what it makes for every client.
		{opts: sregistrytest.Options{NoLibrary: true, PrivateOnly: true}, settings: []string{"new_collections", "public"}, want: true},
		{opts: sregistrytest.Options{NoLibrary: true}},
	} {
		srv := sregistrytest.Start(t, tt.opts)
		srv.AddCollection("open", sregistrytest.User, false)
		srv.AddCollection("shut", sregistrytest.User, true)
		b := configured(t, srv.URL, tt.settings...)
		for i, name := range []string{"fresh", "fresh", "open", "shut"} {
			ref := backends.Ref{Collection: name, Name: "i", Tag: strings.Repeat("x", i+1)}
			img, err := b.Push(t.Context(), ref, backendtest.Source(bytesOf(ref.String(), 900)))
			if err != nil {
				t.Fatalf("%+v: %v", tt, err)
			}
			backendtest.WantRead(t, b, img, 0, -1, bytesOf(ref.String(), 900))
		}
		for name, want := range map[string]bool{"fresh": tt.want, "open": false, "shut": true} {
			if private, ok := srv.Private(name); !ok || private != want {
				t.Errorf("%+v: %s is private: %v, want %v", tt, name, private, want)
			}
		}
	}
	env := backends.Env{Remote: "lab", Config: map[string]any{"url": "https://x", "new_collections": "publik"}}
	if _, err := sregistry.Open(t.Context(), env); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), `"public"`) {
		t.Errorf("Open with new_collections = publik: %v", err)
	}
}

func TestPush_foreignCollection(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	srv.AddCollection("hers", sregistrytest.Guest, true)
	_, err := configured(t, srv.URL).Push(t.Context(), backendtest.Ref(t, "hers/i:1"), backendtest.Source(bytesOf("x", 900)))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "owner") {
		t.Errorf("Push into a stranger's collection: %v", err)
	}
}

// The library API reads LOW as low, and the last part of a nested name as the whole.
// What it gives for such names are another image's bytes.
func TestOpen_foldedNames(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	for _, img := range []sregistrytest.Image{
		{Collection: "col", Name: "low", Tag: "1"}, {Collection: "team", Name: "tool", Tag: "1"},
		{Collection: "col", Name: "LOW", Tag: "1", Old: true}, {Collection: "col", Name: "low", Tag: "V1", Old: true},
		{Collection: "col", Name: "team/tool", Tag: "1", Old: true}, {Collection: "library", Name: "x", Tag: "1"},
		{Collection: "Old.Name", Name: "x", Tag: "1", Old: true},
	} {
		img.Content = bytesOf(img.Collection+img.Name+img.Tag, 900)
		srv.Add(img)
	}
	b := configured(t, srv.URL)
	for spec, of := range map[string]string{
		"col/low:1": "collow1", "col/LOW:1": "colLOW1", "col/low:V1": "collowV1", "col/team/tool:1": "colteam/tool1", "Old.Name/x:1": "Old.Namex1",
	} {
		backendtest.WantRead(t, b, backendtest.Stat(t, b, spec), 0, -1, bytesOf(of, 900))
	}
}

// Signatures are over the name of a collection as it is, also one that the server
// would not give any more.
func TestSigned_oldName(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	srv.Add(sregistrytest.Image{Collection: "Old_Style.Name", Name: "x", Tag: "1", Content: bytesOf("x", 900), Private: true, Old: true})
	b := configured(t, srv.URL)
	img := backendtest.Stat(t, b, "Old_Style.Name/x:1")
	backendtest.WantRead(t, b, img, 0, -1, bytesOf("x", 900))
	if err := b.Delete(t.Context(), img); err != nil {
		t.Error(err)
	}
}

// How many requests a push takes is a promise of the documentation.
func TestPush_requests(t *testing.T) {
	t.Parallel()
	for way, want := range map[string][2]int{"library": {16, 14}, "upload": {9, 7}} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		b := configured(t, srv.URL, "push_by", way)
		for i, tag := range []string{"1", "2"} {
			before := len(srv.Requests())
			if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:"+tag), backendtest.Source(bytesOf(tag, 900))); err != nil {
				t.Fatal(err)
			}
			if n := len(srv.Requests()) - before; n != want[i] {
				t.Errorf("%s, push %d: %d requests, want %d: %q", way, i+1, n, want[i], srv.Requests()[before:])
			}
		}
	}
}

// The server's view of one collection looks for names in lower case alone.
func TestList_case(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{MaxPage: 2})
	for _, name := range []string{"a", "b", "low", "Old_Style.Name"} {
		srv.Add(sregistrytest.Image{Collection: name, Name: "i", Tag: "1", Content: bytesOf(name, 900), Old: true})
	}
	b := configured(t, srv.URL)
	for collection, want := range map[string]error{"low": nil, "Old_Style.Name": nil, "LOW": fs.ErrNotExist, "old_style.name": fs.ErrNotExist} {
		entries, err := backends.Collect(b.List(t.Context(), collection))
		if !errors.Is(err, want) || err == nil && (len(entries) != 1 || entries[0].Image.Ref.Collection != collection) {
			t.Errorf("List(%s) = %v, %v, want %v", collection, entries, err, want)
		}
	}
}
