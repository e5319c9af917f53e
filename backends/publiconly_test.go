// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// With PublicOnly nothing is asked at a private address: neither where the address or
// the name is plain, nor where a name that looks public resolves to one; and nothing by
// http. That the configuration of a remote names it does not help.
func TestPublicOnly_private(t *testing.T) {
	t.Parallel()
	asked := &atomic.Int64{}
	srv := serveTLS(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	port := portOf(srv)
	for _, address := range []string{
		srv.URL, "https://localhost:" + port, "https://[::ffff:127.0.0.1]:" + port, "https://0.0.0.0:" + port, "https://10.0.0.1/", "https://192.168.1.1/",
		"https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://[fe80::1]/", "https://[fd00:ec2::254]/", "https://224.0.0.1/",
		"https://first.example.com:" + port, "http://first.example.com:" + port, "http://1.1.1.1/",
	} {
		hc := publicOnly(t, srv, HTTPOptions{AllowPrivate: true})
		AddHome(hc, address)
		if _, err := get(t, hc, address); !errors.Is(err, ErrNotAllowed) || transient(classify(err)) {
			t.Errorf("%s: %v, want it refused for good", address, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// So too where a public service sends: 127.0.0.1, which first.example.com has, counts as
// public here, and 127.0.0.2, which all other names have, does not.
func TestPublicOnly_sent(t *testing.T) {
	t.Parallel()
	private := serveTLS(t, func(http.ResponseWriter, *http.Request) { t.Error("what is private was asked") })
	plain := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("http was spoken") })
	for _, target := range []string{
		strings.Replace(private.URL, "127.0.0.1", "127.0.0.2", 1), "https://second.example.com:" + portOf(private),
		plain.URL, "http://first.example.com:" + portOf(plain),
	} {
		srv := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/away" {
				http.Redirect(w, r, target, http.StatusTemporaryRedirect)
			}
		})
		home := "https://first.example.com:" + portOf(srv)
		hc := publicOnly(t, srv, HTTPOptions{})
		AddHome(hc, home, target)
		hc.Transport.(*roundTripper).public = func(at netip.Addr) bool { return at == netip.MustParseAddr("127.0.0.1") }
		resp, err := get(t, hc, home)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for _, address := range []string{home + "/away", target} {
			if _, err := get(t, hc, address); !errors.Is(err, ErrNotAllowed) && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s, sent to %s: %v", address, target, err)
			}
		}
	}
}

// A name that is another address at each look-up is judged by the one that is connected to.
func TestPublicOnly_rebinding(t *testing.T) {
	t.Parallel()
	asked := &atomic.Int64{}
	srv := serveTLS(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	hc := publicOnly(t, srv, HTTPOptions{})
	hc.Transport.(*roundTripper).public = func(at netip.Addr) bool { return at == netip.MustParseAddr("127.0.0.2") }
	for range 8 { // the server listens at 127.0.0.1 only, so that only what is private would answer
		if _, err := get(t, hc, "https://rebind.example.com:"+portOf(srv)); err == nil {
			t.Fatal("a private address was asked")
		}
		hc.CloseIdleConnections()
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// Behind a proxy, which alone knows the addresses, the spelling decides.
func TestPublicOnly_proxy(t *testing.T) {
	t.Parallel()
	rt := NewHTTPClient(HTTPOptions{PublicOnly: true, AllowPrivate: true}).Transport.(*roundTripper)
	rt.any.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"})
	for address, ok := range map[string]bool{
		"https://quay.io/": true, "http://quay.io/": false, "https://127.0.0.1/": false, "https://localhost/": false, "https://0x7f.1/": false,
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if got, err := rt.transport(req); (err == nil) != ok || ok && got != rt.any {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func serveTLS(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

func portOf(srv *httptest.Server) string { return srv.URL[strings.LastIndexByte(srv.URL, ':')+1:] }

// publicOnly returns a client that trusts the certificate of srv.
func publicOnly(t *testing.T, srv *httptest.Server, opts HTTPOptions) *http.Client {
	t.Helper()
	opts.PublicOnly = true
	opts.TLS = &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	return newClient(t, opts)
}

var rebound atomic.Int64

// addressOf is what the name server of these tests says.
func addressOf(name string) [4]byte {
	switch {
	case name == "first.example.com.":
		return [4]byte{127, 0, 0, 1}
	case name == "rebind.example.com." && rebound.Add(1)%2 == 0:
		return [4]byte{127, 0, 0, 1}
	}
	return [4]byte{127, 0, 0, 2}
}
