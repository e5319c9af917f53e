// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

// Every part of a name ends up in an address, escaped.
func TestOpen_address(t *testing.T) {
	t.Parallel()
	content := []byte("the bytes of an image with an odd name")
	for _, opts := range []hubtest.Options{{}, {NoIndex: true}} {
		srv := hubtest.Start(t, opts)
		tags := []string{"a/b", "a:b", "100%", "%2F", "a b", "a?b", "a#b", "ö", "a&b=c", "a+b", "a;b", "\x1b[31m"}
		for _, tag := range tags {
			srv.Add(hubtest.Image{Name: "org/repo", Tag: tag, Content: append(content, tag...)})
		}
		b := newRemote(t, srv)
		for _, tag := range tags {
			img, err := b.Stat(t.Context(), backends.Ref{Collection: "org", Name: "repo", Tag: tag})
			if err != nil {
				t.Errorf("Stat of tag %q: %v", tag, err)
				continue
			}
			if got, err := read(t, b, img, 0, -1); err != nil || got != string(content)+tag {
				t.Errorf("tag %q: %q, %v", tag, got, err)
			}
		}
	}
}

func TestStat_url(t *testing.T) {
	t.Parallel()
	srv := recorded(t, hubtest.Options{})
	const dir = "/michael-tn/mpi-hello-world/1.2/singularity.ompi212/2017-10-20-7f9c97a5-885f9916/"
	const name = "michael-tn/mpi-hello-world:1.2%2Fsingularity.ompi212"
	if got, want := statted(t, newRemote(t, srv), name).URL, srv.DataURL+dir; got != want {
		t.Errorf("URL %s, want %s", got, want)
	}
	// The archive itself shows directories to people by another address.
	b := open(t, map[string]any{"index": srv.DataURL + "/_data_/images.json"}, "", nil)
	if got, want := statted(t, b, name).URL, "https://datasets.datalad.org/?dir=/shub"+dir; got != want {
		t.Errorf("URL %s, want %s", got, want)
	}
}

// What can be wrong with the file of an image that is listed.
func TestOpen_faults(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("the bytes of an image\n", 1000)
	listed := hubtest.Image{Name: "org/repo", Tag: "1", Content: []byte(content)}
	partial := func(w http.ResponseWriter, header string) {
		w.Header().Set("Content-Range", header)
		w.WriteHeader(http.StatusPartialContent)
	}
	size := strconv.Itoa(len(content))
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"longer": {func(w http.ResponseWriter, _ *http.Request) {
			partial(w, "bytes 0-99/30000")
			fmt.Fprint(w, content[:100])
		}, backends.ErrBadAnswer},
		"shorter": {func(w http.ResponseWriter, _ *http.Request) {
			partial(w, "bytes 0-99/100")
			fmt.Fprint(w, content[:100])
		}, backends.ErrBadAnswer},
		"elsewhere": {func(w http.ResponseWriter, _ *http.Request) {
			partial(w, "bytes 1-100/"+size)
			fmt.Fprint(w, content[:100])
		}, backends.ErrBadAnswer},
		"no header": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }, backends.ErrBadAnswer},
		"whole":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, content+"more") }, nil},
		"other whole": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "more")
		}, backends.ErrBadAnswer},
		"page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, content)
		}, backends.ErrBadAnswer},
		"past the end": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) }, backends.ErrBadAnswer},
		"gone":         {http.NotFound, fs.ErrNotExist},
		"forbidden":    {hubtest.Status(http.StatusForbidden).ServeHTTP, fs.ErrPermission},
		"down":         {hubtest.Status(http.StatusBadGateway).ServeHTTP, backends.ErrUnavailable},
		"round and round": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}, backends.ErrUnavailable},
	} {
		srv := hubtest.Start(t, hubtest.Options{}, listed)
		b := newRemote(t, srv)
		img := statted(t, b, "org/repo:1")
		srv.Break(tt.answer)
		got, err := read(t, b, img, 0, 100)
		if !errors.Is(err, tt.want) || err == nil && got != content[:100] {
			t.Errorf("%s: %q, %v, want %v", name, got, err, tt.want)
		}
	}
}

// A body that is longer than the index says never gets past the client.
func TestOpen_longer(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hubtest.Image{Name: "org/repo", Tag: "1", Content: []byte("0123456789"), Size: 8})
	b := newRemote(t, srv)
	c := backends.NewClient("hub", b, backends.ClientOptions{})
	img := statted(t, b, "org/repo:1")
	if got, err := read(t, c, img, 0, -1); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("%q, %v, want ErrBadAnswer", got, err)
	}
}

// A service answers everything with what it is told.
func service(t *testing.T, answer any) map[string]any {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api/container/") {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(srv.Close)
	return map[string]any{"url": srv.URL + "/api", "data": srv.URL + "/data"}
}

// Without an index the service's word is all there is, and is not taken for granted.
func TestStat_serviceLies(t *testing.T) {
	t.Parallel()
	version := strings.Repeat("0a", 16)
	said := func(change map[string]any) map[string]any {
		a := map[string]any{"id": 1, "name": "org/repo", "tag": "1", "version": version, "image": hubtest.ArchiveURL + "/org/repo/1/x/" + version + ".sif"}
		for k, v := range change {
			a[k] = v
		}
		return a
	}
	for name, tt := range map[string]struct {
		answer any
		want   error
	}{
		"the truth":       {said(nil), nil},
		"elsewhere":       {said(map[string]any{"image": "http://127.0.0.1:1/x/" + version + ".simg"}), nil},
		"of no version":   {said(map[string]any{"version": nil}), nil},
		"a number":        {429, backends.ErrBadAnswer},
		"nothing":         {map[string]any{}, backends.ErrBadAnswer},
		"another name":    {said(map[string]any{"name": "org/other"}), backends.ErrBadAnswer},
		"another tag":     {said(map[string]any{"tag": "2"}), backends.ErrBadAnswer},
		"no tag":          {said(map[string]any{"tag": nil}), backends.ErrBadAnswer},
		"rubbish version": {said(map[string]any{"version": "../../x"}), backends.ErrBadAnswer},
		"no image":        {said(map[string]any{"image": nil}), backends.ErrBadAnswer},
		"another scheme":  {said(map[string]any{"image": "file:///etc/passwd.sif"}), backends.ErrBadAnswer},
		"a password":      {said(map[string]any{"image": "http://me:secret@127.0.0.1/x.sif"}), backends.ErrBadAnswer},
		"above the data":  {said(map[string]any{"image": hubtest.ArchiveURL + "/../private/" + version + ".sif"}), backends.ErrBadAnswer},
		"no image's file": {said(map[string]any{"image": hubtest.ArchiveURL + "/org/repo/1/x/Singularity"}), backends.ErrBadAnswer},
	} {
		img, err := open(t, service(t, tt.answer), "", nil).Stat(t.Context(), ref(t, "org/repo:1"))
		if !errors.Is(err, tt.want) || err == nil && (img.Version != version || img.Size != -1) || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: %+v, %v, want %v", name, img, err, tt.want)
		}
	}
	// Of a version that was asked for by name, no other one will do.
	other := ref(t, "org/repo:1@"+strings.Repeat("1b", 16))
	if img, err := open(t, service(t, said(nil)), "", nil).Stat(t.Context(), other); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("another version: %+v, %v", img, err)
	}
}

// A public service sends nobody into a private network, and https not to http.
func TestStat_serviceSendsAway(t *testing.T) {
	t.Parallel()
	version := strings.Repeat("0a", 16)
	for image, want := range map[string]error{
		"https://192.168.1.1/x/": backends.ErrBadAnswer, "https://127.1/x/": backends.ErrBadAnswer, "https://localhost/x/": backends.ErrBadAnswer,
		"https://[::1]/x/": backends.ErrBadAnswer, "https://169.254.169.254/x/": backends.ErrBadAnswer, "http://files.example.org/x/": backends.ErrBadAnswer,
		"https://files.example.org/x/": nil,
	} {
		hc := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			if req.URL.Host == "hub.example.org" && strings.HasPrefix(req.URL.Path, "/api/") {
				fmt.Fprintf(w, `{"name":"org/repo","tag":"1","version":%q,"image":%q}`, version, image+version+".sif")
			} else {
				http.NotFound(w, req)
			}
			return w.Result(), nil
		})}
		config := map[string]any{"url": "https://hub.example.org", "data": "https://data.example.org"}
		if _, err := openVia(t, hc, config, "", nil).Stat(t.Context(), ref(t, "org/repo:1")); !errors.Is(err, want) {
			t.Errorf("sent to %s: %v, want %v", image, err, want)
		}
	}
}

// An index that does not come must not keep a named image from being opened.
func TestStat_impatient(t *testing.T) {
	t.Parallel()
	srv := hubtest.Start(t, hubtest.Options{}, hello("1"))
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(release) })
	config := srv.Config()
	config["index"] = silent.URL
	b := open(t, config, "", nil)
	hub.SetPatience(b, 20*time.Millisecond)
	img := statted(t, b, "org/hello:1")
	if got, err := read(t, b, img, 4, 5); err != nil || got != "bytes" {
		t.Errorf("%q, %v", got, err)
	}
}

// Web servers have a Content-Encoding for a name in ".gz", which says what the file is.
func TestOpen_compressed(t *testing.T) {
	t.Parallel()
	var content bytes.Buffer
	z := gzip.NewWriter(&content)
	fmt.Fprint(z, "the bytes of an image")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for ext, want := range map[string]error{"img.gz": nil, "simg": backends.ErrBadAnswer} {
		srv := hubtest.Start(t, hubtest.Options{}, hubtest.Image{Name: "org/repo", Tag: "1", Content: content.Bytes(), Ext: ext})
		b := newRemote(t, srv)
		img := statted(t, b, "org/repo:1")
		srv.Break(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-gzip")
			w.Header().Set("Content-Encoding", "x-gzip")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content.Bytes()))
		}))
		got, err := read(t, b, img, 0, -1)
		if !errors.Is(err, want) || err == nil && got != content.String() {
			t.Errorf("%s: %d bytes, %v, want %v", ext, len(got), err, want)
		}
	}
}
