// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const caps = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanShare

func secret(context.Context, bool) (string, error) { return globustest.Secret, nil }

// open opens the backend on srv as its app.
func open(t *testing.T, srv *globustest.Server, hc *http.Client, config map[string]any, ask backends.SecretFunc) *client {
	t.Helper()
	return openAs(t, srv, hc, config, globustest.App, ask)
}

func openAs(t *testing.T, srv *globustest.Server, hc *http.Client, config map[string]any, user string, ask backends.SecretFunc) *client {
	t.Helper()
	if hc == nil {
		hc = backends.NewHTTPClient(backends.HTTPOptions{})
		t.Cleanup(hc.CloseIdleConnections)
	}
	config["url"] = srv.URL
	c, ok := backendtest.Open(t, backendtest.LoggedIn(Open, user, ask), hc, config).(*client)
	if !ok {
		t.Fatal("Open gave another type")
	}
	c.poll = time.Millisecond
	return c
}

func TestConformance(t *testing.T) {
	t.Parallel()
	const always401 = "Globus answers 401 to a token that has expired (docs.globus.org/api/transfer/overview/#errors)"
	skip := map[string]string{"Logins/aged-403": always401, "Logins/aged-404": always401}
	logins := [2]string{globustest.Secret, globustest.SecondSecret}
	for _, test := range []struct {
		root string
		opts globustest.Options
		col  globustest.Collection
	}{
		{"", globustest.Options{}, globustest.Collection{}},
		{"/~/images", globustest.Options{NoReplace: true, NoLastModified: true}, globustest.Collection{DataAccess: true}},
	} {
		t.Run("root="+test.root, func(t *testing.T) {
			t.Parallel()
			openAs := func(t *testing.T, seed backendtest.Seed, hc *http.Client, ask backends.SecretFunc) backends.Backend {
				srv := globustest.Start(t, test.opts)
				srv.Accept(logins[1])
				id := srv.Add(test.col)
				config := map[string]any{"endpoint": id, "root": test.root}
				root := ""
				if test.root != "" {
					root = "/home/u/images/"
					srv.Put(id, root+"readme.txt", nil, time.Now())
				}
				if test.col.DataAccess {
					config["data_access"] = id
				}
				c := open(t, srv, hc, config, ask)
				for _, img := range seed.Images {
					if c.CheckName(img.Ref) == nil {
						srv.Put(id, root+c.Path(img.Ref, img.Format), img.Content, img.Modified)
					}
				}
				return c
			}
			backendtest.Run(t, backendtest.Harness{
				Caps: caps, Skip: skip, KeepsFormat: true, Logins: logins, OpenAs: openAs,
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					return openAs(t, seed, hc, secret)
				},
			})
		})
	}
}
