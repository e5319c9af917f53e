// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/gcs/gcstest"
	"github.com/sregfs/sregfs/backends/internal/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const caps = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanCopy | backends.CanTag | backends.CanShare | backends.CanListVersions

func token(context.Context, bool) (string, error) { return gcstest.Token, nil }

// openWith opens the backend on srv.
func openWith(t *testing.T, srv *gcstest.Server, hc *http.Client, config map[string]any, secret backends.SecretFunc) *client {
	t.Helper()
	all := map[string]any{"url": srv.URL, "bucket": gcstest.Bucket}
	for key, value := range config {
		all[key] = value
	}
	c, ok := backendtest.Open(t, backendtest.LoggedIn(Open, "", secret), hc, all).(*client)
	if !ok {
		t.Fatal("Open gave another type")
	}
	return c
}

// serve starts a server and opens the backend on it, as the program does.
func serve(t *testing.T, opts gcstest.Options, config map[string]any) (*gcstest.Server, *client) {
	t.Helper()
	srv := gcstest.Start(t, opts)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	return srv, openWith(t, srv, hc, config, token)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		opts   gcstest.Options
		prefix string
		small  int64 // what goes in one request
	}{
		{name: "small", small: smallSize},
		{name: "sessions", opts: gcstest.Options{PageSize: 40, Versioned: true, RewriteCalls: 3}, prefix: "some folder/images"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const always401 = "Google answers 401 to a token that has expired (cloud.google.com/storage/docs/json_api/v1/status-codes)"
			logins := [2]string{gcstest.Token, "ya29.second"}
			openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
				srv := gcstest.Start(t, test.opts)
				srv.Accept(logins[1])
				c := openWith(t, srv, hc, map[string]any{"prefix": test.prefix, "public": true}, secret)
				c.store.small, c.store.chunk = test.small, 256<<10
				seedBucket(c, seed, func(name string, img backendtest.SeedImage, metadata map[string]string) {
					srv.Put(name, img.Content, metadata)
				})
				return c
			}
			backendtest.Run(t, backendtest.Harness{
				Caps: caps, Skip: map[string]string{"Logins/aged-403": always401, "Logins/aged-404": always401},
				KeepsTime: true, KeepsFormat: true, Logins: logins, OpenAs: openAs,
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					return openAs(t, seed, hc, token)
				},
			})
		})
	}
}

// The emulator is not ours: what it does not take, or tells otherwise, would be seen here.
func TestConformance_emulator(t *testing.T) {
	t.Parallel()
	emulator := gcstest.StartEmulator(t)
	backendtest.Run(t, backendtest.Harness{
		Caps: caps, KeepsTime: true, KeepsFormat: true,
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			bucket := emulator.Bucket(t)
			c := backendtest.Open(t, Open, hc, map[string]any{"url": emulator.URL, "bucket": bucket, "public": true}).(*client)
			seedBucket(c, seed, func(name string, img backendtest.SeedImage, metadata map[string]string) {
				emulator.Put(t, bucket, name, img.Content, metadata)
			})
			return c
		},
	})
}

// seedBucket puts what another program has stored, with the time as rclone keeps it.
func seedBucket(c *client, seed backendtest.Seed, put func(name string, img backendtest.SeedImage, metadata map[string]string)) {
	for _, img := range seed.Images {
		if c.CheckName(img.Ref) != nil {
			continue
		}
		name := c.store.prefix + files.Join(c.Folders(img.Ref.Collection)[0], c.Base(img.Ref, img.Format))
		put(name, img, map[string]string{keyMtime: img.Modified.Format("2006-01-02T15:04:05.000000000Z07:00")})
	}
}
