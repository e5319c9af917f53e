// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// Presigned addresses are used again, and fetched anew when they have expired. No
// token leaves for the store.
func TestOpen_link(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	for _, found := range []bool{false, true} {
		srv := librarytest.Start(t, librarytest.Options{Store: store, Found: found})
		content := sifOf("blue", "02", 300_000)
		srv.Add(alpine(content))
		b := newRemote(t, config{"url": srv.URL}, loggedIn())
		img := backendtest.Stat(t, b, "library/alpine:latest")
		for i := range int64(20) {
			backendtest.WantRead(t, b, img, i*1000, 5000, content[i*1000:i*1000+5000])
		}
		if n := srv.Count("GET /v1/imagefile/"); n != 1 {
			t.Errorf("the library was asked %d times for 20 parts, want once", n)
		}
		if n := srv.Count("GET /v1/oci-redirect"); n != 1 {
			t.Errorf("it was asked for its registry %d times, want once", n)
		}
		var refused atomic.Int64
		store.Fail(func(w http.ResponseWriter, _ *http.Request) bool {
			if refused.Add(1) > 1 {
				return false
			}
			w.WriteHeader(http.StatusForbidden) // as S3 says of a signature that has expired
			return true
		})
		backendtest.WantRead(t, b, img, 100, -1, content[100:])
		store.Fail(nil)
		if n := srv.Count("GET /v1/imagefile/"); n != 2 {
			t.Errorf("after the address expired the library was asked %d times, want twice", n)
		}
	}
	for _, r := range store.Requests() {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s %s came with a login", r.Method, r.URL.Path)
		}
	}
}

// One whose life is over by what it says itself is not even tried.
func TestOpen_linkLife(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	srv := librarytest.Start(t, librarytest.Options{Store: store, Life: 5 * time.Second})
	content := sifOf("brief", "02", 5000)
	srv.Add(alpine(content))
	b := newRemote(t, config{"url": srv.URL})
	img := backendtest.Stat(t, b, "library/alpine:latest")
	for range 3 {
		backendtest.WantRead(t, b, img, 0, 100, content[:100])
	}
	if n := srv.Count("GET /v1/imagefile/"); n != 3 {
		t.Errorf("the library was asked %d times, want each time", n)
	}
}

// A library that sends images itself, and knows no ranges.
func TestOpen_stream(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{Stream: true})
	content := sifOf("stream", "02", 3<<20)
	srv.Add(alpine(content))
	b := newRemote(t, config{"url": srv.URL})
	img := backendtest.Stat(t, b, "library/alpine:latest")
	backendtest.WantRead(t, b, img, 0, -1, content)
	backendtest.WantRead(t, b, img, 1000, 2000, content[1000:3000])
	_, err := backendtest.Read(t, b, img, 2<<20, 100)
	backendtest.WantErr(t, "a part far from the beginning", err, errors.ErrUnsupported)
}

// A library that knows its files by tags alone is asked so, while the tag means the
// same.
func TestOpen_byTag(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{NoHashFile: true})
	old := alpine(sifOf("old", "02", 5000))
	srv.Add(old)
	b := newRemote(t, config{"url": srv.URL})
	img := backendtest.Stat(t, b, "library/alpine:latest")
	backendtest.WantRead(t, b, img, 7, 900, old.Content[7:907])
	srv.Add(alpine(sifOf("new", "02", 5000)))
	_, err := backendtest.Read(t, b, img, 0, 100)
	backendtest.WantErr(t, "the tag has moved", err, backends.ErrChanged)
}

// A tag that moves changes nothing for who reads the image it meant.
func TestOpen_moved(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	old := alpine(sifOf("old", "02", 5000))
	srv.Add(old)
	b := newRemote(t, config{"url": srv.URL})
	img := backendtest.Stat(t, b, "library/alpine:latest")
	srv.Add(alpine(sifOf("new", "02", 5000)))
	backendtest.WantRead(t, b, img, 0, -1, old.Content)
}

// Tokens for the registry are those that the library hands out, and are asked for
// anew when they have expired. The library's own token never goes there.
func TestOpen_registry(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "library", Password: "secret", TokenAuth: true})
	srv := librarytest.Start(t, librarytest.Options{Registry: reg, Tokens: true, Prefix: "lib"})
	content := sifOf("oci", "02", 200_000)
	srv.Add(alpine(content))
	arm := alpine(sifOf("oci arm", "04", 1000))
	arm.Arch = "arm64"
	srv.Add(arm)
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	img := backendtest.Stat(t, b, "library/alpine:latest")
	srv.SpoilTokens(1) // the first one has expired when it is used
	for i := range int64(10) {
		backendtest.WantRead(t, b, img, i*1000, 500, content[i*1000:i*1000+500])
	}
	backendtest.WantRead(t, b, backendtest.Stat(t, b, "library/alpine:latest@arm64"), 0, -1, arm.Content)
	if n := srv.Count("GET /v1/oci-redirect"); n != 2 {
		t.Errorf("%d tokens were asked for, want 2", n)
	}
	if n := srv.Count("GET /v1/imagefile/"); n != 0 {
		t.Errorf("%d requests for the file of what is in the registry", n)
	}
	// One that cannot be helped is told, after one more token.
	srv.SpoilTokens(100)
	fresh := newRemote(t, config{"url": srv.URL}, loggedIn())
	before := srv.Count("GET /v1/oci-redirect")
	_, err := backendtest.Read(t, fresh, img, 0, 100)
	backendtest.WantErr(t, "tokens that are no good", err, backends.ErrUnauthorized)
	if n := srv.Count("GET /v1/oci-redirect") - before; n != 2 {
		t.Errorf("%d tokens were asked for, want 2", n)
	}
	for _, r := range reg.Requests() {
		if strings.Contains(r.Header.Get("Authorization"), librarytest.Token) {
			t.Errorf("%s %s came with the library's token", r.Method, r.Path)
		}
	}
	if n := reg.Count("", "/manifests/"); n != 0 {
		t.Errorf("%d manifests were read for bytes whose digest is known", n)
	}
}

// However many begin at once, the registry is asked for once.
func TestOpen_registryOnce(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	srv := librarytest.Start(t, librarytest.Options{Registry: reg, Prefix: "lib"})
	content := sifOf("oci", "02", 20_000)
	srv.Add(alpine(content))
	b := newRemote(t, config{"url": srv.URL})
	img := backendtest.Stat(t, b, "library/alpine:latest")
	g, ctx := errgroup.WithContext(t.Context())
	for i := range int64(16) {
		g.Go(func() error {
			body, err := b.Open(ctx, img, i*1000, 1000)
			if err != nil {
				return err
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err == nil && !bytes.Equal(got, content[i*1000:(i+1)*1000]) {
				err = errors.New("other bytes")
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := srv.Count("GET /v1/oci-redirect"); n != 1 {
		t.Errorf("the library was asked %d times, want once", n)
	}
}

func TestOpen_gone(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	srv.Add(alpine(sifOf("x", "02", 500)))
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	img := backendtest.Stat(t, b, "library/alpine:latest")
	if err := b.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	_, err := backendtest.Read(t, b, img, 0, -1)
	backendtest.WantErr(t, "an image that was deleted", err, fs.ErrNotExist)
}
