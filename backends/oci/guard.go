// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
)

// loginHosts are the token services of registries that have them elsewhere.
func loginHosts(registry string) string {
	switch registry {
	case dockerHub:
		return "auth.docker.io"
	case "nvcr.io":
		return "authn.nvidia.com"
	}
	return ""
}

// A guard is the last gate before the network: credentials and uploads leave
// for the registry itself and for its token service, and nowhere else, whatever
// a challenge, a redirect or a Location header says. (Two advisories against
// oras-go, GHSA-vh4v-2xq2-g5cg and GHSA-jxpm-75mh-9fp7, are of this kind.)
type guard struct {
	next     http.RoundTripper
	home     *url.URL
	authHost string
	asked    atomic.Pointer[http.Request] // the last request that the registry answered
}

var (
	errForeignLogin  = errors.New("credentials asked for by another host")
	errForeignUpload = errors.New("upload sent to another host")
)

// RoundTrip sends req unless it would give something away.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	secret := req.Header.Get("Authorization") != "" || req.Header.Get("Cookie") != ""
	form := strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	var err error
	switch {
	case sameOrigin(req.URL, g.home):
	case (secret || form) && !g.trusts(req.URL):
		err = fmt.Errorf("%w: %w: %s wants its login sent to %s (if that is its token service, set auth_host = %q)",
			backends.ErrUnauthorized, errForeignLogin, g.home.Host, backends.Origin(req.URL), req.URL.Host)
	case !reads && !form:
		err = fmt.Errorf("%w: %w: %s, by %s", backends.ErrBadAnswer, errForeignUpload, backends.Origin(req.URL), g.home.Host)
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	next := g.next
	if next == nil {
		next = http.DefaultTransport
	}
	if !sameOrigin(req.URL, g.home) {
		return next.RoundTrip(g.sentAway(req))
	}
	resp, err := next.RoundTrip(req)
	if err == nil && resp.Request != nil {
		// Not the request itself: its body would stay with it.
		asked := &http.Request{Method: req.Method, URL: resp.Request.URL}
		g.asked.Store(asked.WithContext(resp.Request.Context()))
	}
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		oneChallenge(resp.Header)
	}
	return resp, err
}

// sentAway returns req as one that the registry redirected to, which it is even
// where the address was in a challenge, or in a redirect that is remembered:
// the transport then keeps a public registry from sending us to private
// addresses. By itself the transport guards other hosts only, and not another port
// of the registry's name, which may resolve to a private address by now. Where the
// configuration sends us is another matter.
func (g *guard) sentAway(req *http.Request) *http.Request {
	asked := g.asked.Load()
	if asked == nil || req.Response != nil || g.configured(req.URL) {
		return req
	}
	away := req.WithContext(req.Context())
	away.Response = &http.Response{Request: asked}
	return away
}

// configured reports whether u is on the host that the configuration names.
func (g *guard) configured(u *url.URL) bool {
	return g.authHost != "" && (strings.EqualFold(g.authHost, u.Host) || strings.EqualFold(g.authHost, u.Hostname()))
}

// trusts reports whether the registry's login may be sent to u: a host of the
// same name, one below it or one that it is below (gitlab.com for
// registry.gitlab.com), a known pair, or the configured host. Never over http
// if the registry itself is reached by https.
func (g *guard) trusts(u *url.URL) bool {
	if u.Scheme != "https" && (u.Scheme != "http" || g.home.Scheme == "https") {
		return false
	}
	host, home := strings.ToLower(u.Hostname()), g.home.Hostname()
	switch {
	case host == home || host == loginHosts(home):
		return true
	case g.configured(u):
		return true
	case isAddress(host) || isAddress(home):
		return false
	}
	parent := strings.HasSuffix(home, "."+host) && strings.Contains(host, ".")
	return parent || strings.HasSuffix(host, "."+home)
}

func isAddress(host string) bool {
	return strings.Contains(host, ":") || strings.Trim(host, "0123456789.") == ""
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool { return backends.Origin(a) == backends.Origin(b) }
