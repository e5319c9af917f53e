// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/swift/swifttest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	swifttest.StopShared()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const caps = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanMove | backends.CanCopy | backends.CanTag | backends.CanShare

func key(context.Context, bool) (string, error) { return swifttest.Key, nil }

// seed puts images where a push would.
func seed(t *testing.T, a *swifttest.Account, c *client, all backendtest.Seed) {
	t.Helper()
	for _, img := range all.Images {
		if c.CheckName(img.Ref) == nil {
			a.Put(t, files.Join(c.store.container, c.Path(img.Ref, img.Format)), img.Content, http.Header{"X-Timestamp": {fmt.Sprintf("%d.00000", img.Modified.Unix())}})
		}
	}
}

// open opens the backend on an account, as its user.
func open(t *testing.T, a *swifttest.Account, hc *http.Client, config map[string]any) *client {
	t.Helper()
	all := map[string]any{"url": a.Auth, "temp_url_key": "k"}
	for name, value := range config {
		all[name] = value
	}
	c, ok := backendtest.Open(t, backendtest.LoggedIn(Open, a.User, key), hc, all).(*client)
	if !ok {
		t.Fatal("Open gave another type")
	}
	return c
}

// serve returns a new account, and the backend on it as the program has it.
func serve(t *testing.T, config map[string]any) (*swifttest.Account, *client) {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	a := swifttest.Shared(t).Account()
	return a, open(t, a, hc, config)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	srv := swifttest.Shared(t)
	tokens := srv.Tokens(t)
	const always401 = "Swift answers 401 to a token that has expired (its API, \"Authentication\")"
	skip := map[string]string{
		"Logins/aged-403": always401, "Logins/aged-404": always401,
		"Stat/head-refused": "Swift's API tells of a container, an account and a segment by HEAD alone: what stands before one lets it through",
	}
	harness := backendtest.Harness{
		Caps: caps, Skip: skip, KeepsFormat: true, Logins: tokens,
		Open: func(t *testing.T, all backendtest.Seed, hc *http.Client) backends.Backend {
			a := srv.Account()
			c := open(t, a, hc, nil)
			c.store.part = 512 // so that most images are large objects
			seed(t, a, c, all)
			return c
		},
		OpenAs: func(t *testing.T, all backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
			a := srv.Account()
			b := backendtest.Open(t, backendtest.LoggedIn(Open, "", secret), hc, map[string]any{"storage_url": a.Storage})
			c := b.(*client)
			seed(t, a, c, all)
			return c
		},
	}
	t.Run("a container for each collection", func(t *testing.T) {
		t.Parallel()
		backendtest.Run(t, harness)
	})
	t.Run("one container", func(t *testing.T) {
		t.Parallel()
		h := harness
		h.Open = func(t *testing.T, all backendtest.Seed, hc *http.Client) backends.Backend {
			a := srv.Account()
			c := open(t, a, hc, map[string]any{"container": "images"})
			a.Do(t, http.MethodPut, "/images", nil, nil)
			seed(t, a, c, all)
			return c
		}
		backendtest.Run(t, h)
	})
}
