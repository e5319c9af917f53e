// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/drive/drivetest"
	"github.com/sregfs/sregfs/backends/internal/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const caps = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanShare | backends.CanWatch | backends.CanMove | backends.CanCopy | backends.CanTag

func token(context.Context, bool) (string, error) { return drivetest.Token, nil }

func open(t *testing.T, srv *drivetest.Server, hc *http.Client, config map[string]any, secret backends.SecretFunc) *client {
	t.Helper()
	all := map[string]any{"url": srv.URL}
	for key, value := range config {
		all[key] = value
	}
	c := backendtest.Open(t, backendtest.LoggedIn(Open, "", secret), hc, all).(*client)
	c.piece, c.poll = 256<<10, 5*time.Millisecond
	return c
}

// serve starts a server with the folder of the sregistry client, and opens the backend on it.
func serve(t *testing.T, opts drivetest.Options) (srv *drivetest.Server, c *client, root string) {
	t.Helper()
	srv = drivetest.Start(t, opts)
	root = srv.AddFolder(srv.Root(), "sregistry")
	return srv, another(t, srv), root
}

// another opens the backend once more, as another machine would.
func another(t *testing.T, srv *drivetest.Server) *client {
	t.Helper()
	return through(t, srv, func(next http.RoundTripper) http.RoundTripper { return next })
}

// through is another with a transport of the test's.
func through(t *testing.T, srv *drivetest.Server, wrap func(http.RoundTripper) http.RoundTripper) *client {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	wrapped := *hc
	wrapped.Transport = wrap(hc.Transport)
	return open(t, srv, &wrapped, nil, token)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	type variant struct {
		opts    drivetest.Options
		config  map[string]any
		folders bool // the collections are folders
	}
	for name, v := range map[string]variant{
		"flat":     {opts: drivetest.Options{}},
		"folders":  {opts: drivetest.Options{PageSize: 2}, config: map[string]any{"root": "Some Folder/Images"}, folders: true},
		"shared":   {opts: drivetest.Options{SharedDrive: "0AShared", StoresAtMost: 256 << 10}, config: map[string]any{"shared_drive": "0AShared"}},
		"readonly": {opts: drivetest.Options{NoRevisions: true, PageSize: 3}, config: map[string]any{"root": "/"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const always401 = "Drive answers 401 to a token that has expired (developers.google.com/workspace/drive/api/guides/handle-errors)"
			skip := map[string]string{"Logins/aged-403": always401, "Logins/aged-404": always401}
			logins := [2]string{drivetest.Token, "ya29.second"}
			openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
				srv := drivetest.Start(t, v.opts)
				srv.Accept(logins[1])
				c := open(t, srv, hc, v.config, secret)
				s := &seeder{srv: srv, folders: map[string]string{"": srv.Root()}}
				if v.opts.SharedDrive != "" {
					s.folders[""] = v.opts.SharedDrive
				}
				for _, part := range c.root {
					s.folders[""] = srv.AddFolder(s.folders[""], part)
				}
				for _, img := range seed.Images {
					path := c.Path(img.Ref, img.Format)
					if folder, base := files.Split(path); v.folders {
						srv.AddFile(s.folder(folder), base, img.Content, img.Modified)
					} else {
						srv.AddFile(s.folders[""], path, img.Content, img.Modified)
					}
				}
				return c
			}
			backendtest.Run(t, backendtest.Harness{Caps: caps, Skip: skip, KeepsTime: true, KeepsFormat: true, Logins: logins, OpenAs: openAs, Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
				return openAs(t, seed, hc, token)
			}})
		})
	}
}

// A seeder makes folders.
type seeder struct {
	srv     *drivetest.Server
	folders map[string]string // ids by path
}

func (s *seeder) folder(path string) string {
	if id, ok := s.folders[path]; ok {
		return id
	}
	above, name := files.Split(path)
	s.folders[path] = s.srv.AddFolder(s.folder(above), name)
	return s.folders[path]
}
