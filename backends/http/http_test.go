// SPDX-License-Identifier: Apache-2.0

package http_test

import (
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/http"
	"github.com/sregfs/sregfs/backends/http/webtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// servers are the real ones that are tested with.
var servers = map[string]func(testing.TB) *webtest.Server{
	"nginx":      func(t testing.TB) *webtest.Server { return webtest.Nginx(t, webtest.Options{}) },
	"nginx-json": func(t testing.TB) *webtest.Server { return webtest.Nginx(t, webtest.Options{JSON: true}) },
	"apache":     webtest.Apache,
	"python":     webtest.Python, // has no ranges and no conditions
}

var logins = [2]string{"first", "second"}

// private starts a proxy to srv that wants one of logins, and returns its address.
func private(t *testing.T, srv *webtest.Server) string {
	t.Helper()
	to, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &nethttp.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = transport
	front := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, req *nethttp.Request) {
		if user, password, _ := req.BasicAuth(); user != "me" || !slices.Contains(logins[:], password) {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(nethttp.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// The suite, against each of them. Its subtests share one, each in a folder of its
// own.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, start := range servers {
		for _, sums := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,sums=%v", name, sums), func(t *testing.T) {
				t.Parallel()
				srv := start(t)
				var opened atomic.Int64
				backendtest.Run(t, backendtest.Harness{
					Caps: backends.CanList,
					Open: func(t *testing.T, seed backendtest.Seed, hc *nethttp.Client) backends.Backend {
						folder := fmt.Sprintf("test %d", opened.Add(1))
						put(srv, folder, seed, sums)
						return backendtest.Open(t, http.Open, hc, map[string]any{"url": srv.URL + "/" + folder})
					},
					Logins: logins,
					OpenAs: func(t *testing.T, seed backendtest.Seed, hc *nethttp.Client, secret backends.SecretFunc) backends.Backend {
						folder := fmt.Sprintf("test %d", opened.Add(1))
						put(srv, folder, seed, sums)
						return backendtest.Open(t, backendtest.LoggedIn(http.Open, "me", secret), hc, map[string]any{"url": private(t, srv) + "/" + folder})
					},
				})
			})
		}
	}
}
