// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const caps = backends.CanList | backends.CanSearch | backends.CanPush | backends.CanDelete | backends.CanShare | backends.CanWatch | backends.CanCopy

func token(context.Context, bool) (string, error) { return dropboxtest.Token, nil }

// testPiece is the smallest that there can be: hashing is slow under -race.
const testPiece = 4 << 20

// open opens the backend on srv.
func open(t *testing.T, srv *dropboxtest.Server, hc *http.Client, config map[string]any) backends.Backend {
	t.Helper()
	return openWith(t, srv, hc, config, token)
}

func openWith(t *testing.T, srv *dropboxtest.Server, hc *http.Client, config map[string]any, secret backends.SecretFunc) backends.Backend {
	t.Helper()
	if config == nil {
		config = map[string]any{}
	}
	config["url"] = srv.URL
	b := backendtest.Open(t, backendtest.LoggedIn(Open, "", secret), hc, config)
	b.(*client).piece = testPiece
	return b
}

// serve starts a server and opens the backend on it, as the program does.
func serve(t *testing.T, opts dropboxtest.Options) (*dropboxtest.Server, *client) {
	t.Helper()
	srv := dropboxtest.Start(t, opts)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	c, ok := open(t, srv, hc, nil).(*client)
	if !ok {
		t.Fatal("Open gave another type")
	}
	return srv, c
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for root, opts := range map[string]dropboxtest.Options{
		"": {},
		// A folder within a path may be told in another case than its own.
		"Some Folder/Images": {PageSize: 40, LowerParents: true},
	} {
		t.Run("root="+root, func(t *testing.T) {
			t.Parallel()
			const always401 = "Dropbox answers 401 to a token that has expired (www.dropbox.com/developers/documentation/http/documentation#error-handling)"
			skip := map[string]string{
				"Answers/400":     "which is how Dropbox says that an argument cannot be: fs.ErrInvalid",
				"Logins/aged-403": always401, "Logins/aged-404": always401,
			}
			logins := [2]string{dropboxtest.Token, "sl.second"}
			openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
				srv := dropboxtest.Start(t, opts)
				srv.Accept(logins[1])
				b := openWith(t, srv, hc, map[string]any{"root": root}, secret)
				for _, img := range seed.Images {
					srv.Put(b.(*client).path(img.Ref, img.Format), img.Content, img.Modified)
				}
				return b
			}
			backendtest.Run(t, backendtest.Harness{Caps: caps, Skip: skip, KeepsTime: true, KeepsFormat: true, Logins: logins, OpenAs: openAs, Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
				return openAs(t, seed, hc, token)
			}})
		})
	}
}
