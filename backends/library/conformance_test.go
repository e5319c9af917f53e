// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const everything = backends.CanList | backends.CanSearch | backends.CanPush | backends.CanDelete | backends.CanTag

func skip() map[string]string {
	return map[string]string{"Delete/other-tags-stay": "a library deletes an image with all its tags, so one that has others is not deleted"}
}

// seeded is an image of the suite in the library's words.
func seeded(img backendtest.SeedImage) librarytest.Image {
	entity, collection, ok := strings.Cut(img.Ref.Collection, "/")
	if !ok {
		collection = "default"
	}
	return librarytest.Image{
		Entity: entity, Collection: collection, Container: img.Ref.Name, Tag: img.Ref.Tag, Content: img.Content, Created: img.Modified,
	}
}

// conformance runs the suite on servers of that kind.
func conformance(t *testing.T, config map[string]any, partSize int64, skip map[string]string, options func() librarytest.Options) {
	t.Helper()
	logins := [2]string{librarytest.Token, "t0k3n-the-next"}
	openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, private bool, secret backends.SecretFunc) backends.Backend {
		opts := options()
		srv := librarytest.Start(t, opts)
		srv.SetTokens(logins[:]...)
		for _, c := range seed.Containers { // past the library, as docker does
			in := seeded(backendtest.SeedImage{Ref: c.Ref})
			opts.Registry.PushImage(opts.Prefix+"/"+in.Entity+"/"+in.Collection+"/"+in.Container, in.Tag,
				ocitest.Image{Manifest: c.Manifest, MediaType: c.MediaType, Blobs: c.Blobs})
		}
		for _, img := range seed.Images {
			add := seeded(img)
			add.Private = private
			srv.Add(add)
		}
		table := map[string]any{"url": srv.URL}
		for key, value := range config {
			table[key] = value
		}
		b := backendtest.Open(t, backendtest.LoggedIn(library.Opener(oci.Open), "", secret), hc, table)
		if partSize > 0 {
			library.SetPartSize(b, partSize)
		}
		return b
	}
	backendtest.Run(t, backendtest.Harness{
		Caps: everything,
		Skip: skip, Containers: options().Registry != nil,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			return openAs(t, seed, hc, false, func(context.Context, bool) (string, error) { return librarytest.Token, nil })
		},
		Logins: logins,
		OpenAs: func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
			return openAs(t, seed, hc, true, secret)
		},
	})
}

// The bytes are in the library itself, as with the oldest servers.
func TestConformance_raw(t *testing.T) {
	t.Parallel()
	conformance(t, nil, 0, skip(), func() librarytest.Options { return librarytest.Options{APIVersion: "1.0.0"} })
}

// The bytes are in an object store, and come there in one request.
func TestConformance_store(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	conformance(t, nil, 0, skip(), func() librarytest.Options { return librarytest.Options{Store: store} })
}

// They come there in parts. (S3 takes no parts of less than 5 MiB but the last: these
// uploads have one each; push_test.go has larger ones.)
func TestConformance_parts(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	conformance(t, map[string]any{"push_by": "multipart"}, 1, skip(), func() librarytest.Options { return librarytest.Options{Store: store, Found: true} })
}

// Everything is in an OCI registry.
func TestConformance_oci(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "library", Password: "secret", TokenAuth: true})
	var opened atomic.Int64
	without := skip()
	without["List/many"] = "a listing is the library's, wherever the bytes are; 250 pushes to a real registry take a minute"
	conformance(t, nil, 0, without, func() librarytest.Options {
		return librarytest.Options{Registry: reg, Tokens: true, Prefix: fmt.Sprintf("suite/test%d", opened.Add(1))}
	})
}
