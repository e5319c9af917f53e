// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// A public service that names a host with a private address, in whatever answer, is
// not followed there: what counts is the address connected to, not what the name
// looks like. A private one may, and where the configuration sends us we go.
// Which addresses are public is turned round: port by port.
func TestHome(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		homePublic, otherPublic bool
		configured, allow       bool
		refused                 bool
	}{
		"public names private":             {homePublic: true, refused: true},
		"public names public":              {homePublic: true, otherPublic: true},
		"private names private":            {},
		"private names public":             {otherPublic: true},
		"public, the other is configured":  {homePublic: true, configured: true},
		"public names private, is allowed": {homePublic: true, allow: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metadata") })
			other := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) // the "public" name of a private address
			hc := newClient(t, HTTPOptions{AllowPrivate: tt.allow})
			asked := 0
			hc.Transport.(*roundTripper).public = func(netip.Addr) bool {
				if asked++; asked == 1 {
					return tt.homePublic
				}
				return tt.otherPublic
			}
			if tt.configured {
				AddHome(hc, srv.URL, strings.TrimPrefix(other, "http://"))
			}
			if _, err := get(t, hc, srv.URL); err != nil {
				t.Fatal(err)
			}
			resp, err := get(t, hc, other)
			if (err != nil) != tt.refused || err != nil && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "allow_private")) {
				t.Errorf("%v, want refused = %v", err, tt.refused)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}

// Before anything was connected to, the names decide.
func TestHome_unmet(t *testing.T) {
	t.Parallel()
	for address, guarded := range map[string]bool{"https://registry.example": true, "10.0.0.1:5000": false, "http://localhost:5000": false} {
		hc := newClient(t, HTTPOptions{})
		AddHome(hc, address, "", "::", "team")
		delete(hc.Transport.(*roundTripper).home.hosts, "team")
		rt := hc.Transport.(*roundTripper)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://elsewhere.example/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := rt.transport(req); err != nil || (got == rt.guarded) != guarded {
			t.Errorf("home %s: guarded %v, %v", address, got == rt.guarded, err)
		}
	}
}

// Where certificates are not checked, that holds for the configured host alone.
func TestHome_insecure(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)+"/", http.StatusFound)
		}
	})
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	hc := newClient(t, HTTPOptions{TLS: &tls.Config{InsecureSkipVerify: true}})
	AddHome(hc, srv.URL)
	resp, err := get(t, hc, srv.URL)
	if err != nil {
		t.Fatalf("the configured host: %v", err)
	}
	resp.Body.Close()
	if _, err := get(t, hc, srv.URL+"/away"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a redirect to another host, whose certificate nobody vouches for: %v", err)
	}
	if _, err := get(t, hc, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another host: %v", err)
	}
}

// Only the configured host sees our certificate, whoever else asks for one.
func TestHome_clientCert(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	var shown atomic.Int64
	roots := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	hc := newClient(t, HTTPOptions{TLS: &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		shown.Add(1)
		return &tls.Certificate{}, nil
	}}})
	AddHome(hc, srv.URL)
	for address, want := range map[string]int64{srv.URL: 1, strings.Replace(srv.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1): 0} {
		shown.Store(0)
		resp, err := get(t, hc, address)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := shown.Load(); got != want {
			t.Errorf("%s was shown a certificate %d times, want %d", address, got, want)
		}
	}
}

// A password goes over plain http to this machine only, unless somebody wants it so:
// in whichever header it is, and in a body.
func TestHTTP_plainLogin(t *testing.T) {
	t.Parallel()
	form := "application/x-www-form-urlencoded; charset=utf-8"
	for address, refused := range map[string]bool{
		"http://127.0.0.1:1/": false, "http://localhost/": false, "http://[::1]/": false, "https://registry.example/": false,
		"http://registry.example/": true, "http://10.0.0.1:5000/": true,
	} {
		for _, tt := range []struct {
			name, value  string
			body, secret bool
		}{
			{name: "Authorization", value: "Basic eDp5", secret: true},
			{name: "Authorization", value: "bearer x", secret: true},
			{name: "Authorization", value: "token x", secret: true},
			{name: "Authorization", value: ""},
			{name: "Authorization", value: "SREGISTRY-HMAC-SHA256 Credential=x"},
			{name: "Authorization", value: "AWS4-HMAC-SHA256 Credential=x"},
			{name: "Private-Token", value: "x", secret: true},
			{name: "Job-Token", value: "x", secret: true},
			{name: "X-Jfrog-Art-Api", value: "x", secret: true},
			{name: "Cookie", value: "x=y", secret: true},
			{name: "Content-Type", value: form, secret: true},
			{name: "Content-Type", value: "application/json"},
			{name: "Content-Type", value: "application/json", body: true, secret: true},
			{name: "Content-Range", value: "0-1"},
			{name: "Dropbox-Api-Arg", value: "{}"},
			{name: "X-Amz-Content-Sha256", value: "x"},
		} {
			for _, plain := range []bool{false, true} {
				rt := newClient(t, HTTPOptions{PlainLogin: plain}).Transport.(*roundTripper)
				ctx := t.Context()
				if tt.body {
					ctx = WithLogin(ctx)
				}
				req := httptest.NewRequestWithContext(ctx, http.MethodPost, address, nil)
				req.Header.Set(tt.name, tt.value)
				err := rt.checkLogin(req)
				if (err != nil) != (refused && tt.secret && !plain) || err != nil && !errors.Is(TransportError(err), ErrNotAllowed) {
					t.Errorf("%s: %q (login in the body: %v) to %s, plain_login %v: %v", tt.name, tt.value, tt.body, address, plain, err)
				}
			}
		}
	}
}
