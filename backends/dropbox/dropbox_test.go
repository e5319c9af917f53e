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

const caps = backends.CanList | backends.CanSearch | backends.CanPush | backends.CanDelete | backends.CanShare | backends.CanWatch

func token(context.Context, bool) (string, error) { return dropboxtest.Token, nil }

// testPiece is the smallest that there can be: hashing is slow under -race.
const testPiece = 4 << 20

// open opens the backend on srv.
func open(t *testing.T, srv *dropboxtest.Server, hc *http.Client, config map[string]any) backends.Backend {
	t.Helper()
	if config == nil {
		config = map[string]any{}
	}
	config["url"] = srv.URL
	b := backendtest.Open(t, func(ctx context.Context, env backends.Env) (backends.Backend, error) {
		env.Secret = token
		return Open(ctx, env)
	}, hc, config)
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
			skip := map[string]string{"Answers/400": "which is how Dropbox says that an argument cannot be: fs.ErrInvalid"}
			backendtest.Run(t, backendtest.Harness{Caps: caps, Skip: skip, KeepsTime: true, KeepsFormat: true, Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
				srv := dropboxtest.Start(t, opts)
				b := open(t, srv, hc, map[string]any{"root": root})
				for _, img := range seed.Images {
					srv.Put(b.(*client).path(img.Ref, extension(img.Format)), img.Content, img.Modified)
				}
				return b
			}})
		})
	}
}
