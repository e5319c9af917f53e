// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/http/webtest"
	"github.com/sregfs/sregfs/backends/internal/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// servers are the real ones that are tested with.
var servers = map[string]func(testing.TB) *webtest.Server{
	"apache":         func(t testing.TB) *webtest.Server { return webtest.ApacheDAV(t, webtest.Options{}) },
	"apache-nolocks": func(t testing.TB) *webtest.Server { return webtest.ApacheDAV(t, webtest.Options{NoLocks: true}) },
	"rclone":         func(t testing.TB) *webtest.Server { return webtest.RcloneDAV(t, webtest.Options{}) },
}

var logins = [2]string{"first", "second"}

// private starts a proxy to srv that wants one of logins, and returns its address.
func private(t *testing.T, srv *webtest.Server) string {
	t.Helper()
	to, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = transport
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "me" || !slices.Contains(logins[:], password) {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

func put(srv *webtest.Server, folder string, seed backendtest.Seed) {
	srv.Put(folder+"/README", nil, time.Now())
	for _, img := range seed.Images {
		srv.Put(folder+"/"+(files.Layout{}).Path(img.Ref, img.Format), img.Content, img.Modified)
	}
}

// all is what the backend can do.
const all = backends.CanList | backends.CanPush | backends.CanDelete | backends.CanTag | backends.CanCopy | backends.CanMove

// chunkOfTest is the size of chunks where the suite pushes to Nextcloud.
const chunkOfTest = 1000

// The suite, against Nextcloud's chunked uploads.
func TestConformance_nextcloud(t *testing.T) {
	t.Parallel()
	srv := newNextcloud(t, chunkOfTest)
	var opened atomic.Int64
	home := func(seed backendtest.Seed) map[string]any {
		folder := fmt.Sprintf("%stest %d", ncFiles, opened.Add(1))
		put(srv.apache, folder, seed)
		return map[string]any{"url": srv.URL + folder}
	}
	small := func(b backends.Backend) backends.Backend {
		plain(b).store.chunk = chunkOfTest
		return b
	}
	backendtest.Run(t, backendtest.Harness{
		Caps: all | backends.CanShare, KeepsFormat: true, KeepsTime: true,
		Skip: map[string]string{"Drip/push": "chunks of this size are sent before a rate can be told; the other servers get whole files"},
		Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
			return small(backendtest.Open(t, Open, hc, home(seed)))
		},
	})
}

// The suite, against each of them. Its subtests share one, each in a folder of its own.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t)
			var opened atomic.Int64
			backendtest.Run(t, backendtest.Harness{
				Caps: all, KeepsFormat: true, KeepsTime: name != "rclone",
				Open: func(t *testing.T, seed backendtest.Seed, hc *http.Client) backends.Backend {
					folder := fmt.Sprintf("test %d", opened.Add(1))
					put(srv, folder, seed)
					return backendtest.Open(t, Open, hc, map[string]any{"url": srv.URL + "/" + folder})
				},
				Logins: logins,
				OpenAs: func(t *testing.T, seed backendtest.Seed, hc *http.Client, secret backends.SecretFunc) backends.Backend {
					folder := fmt.Sprintf("test %d", opened.Add(1))
					put(srv, folder, seed)
					return backendtest.Open(t, backendtest.LoggedIn(Open, "me", secret), hc, map[string]any{"url": private(t, srv) + "/" + folder})
				},
			})
		})
	}
}
