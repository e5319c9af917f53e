// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/cenkalti/backoff/v4"
)

const maxRedirects = 10

// anonymous are the headers that say nothing of who sends them. Only these go
// on to another origin: package net/http knows Authorization and Cookie, but
// no service's own token headers, and lets both pass to another port of a host.
var anonymous = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Content-Type": true, "Range": true,
	"If-Match": true, "If-None-Match": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "If-Range": true,
	"User-Agent": true,
}

// checkRedirect is the http.Client.CheckRedirect of NewHTTPClient.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return refused(req.URL, "more than %d redirects", maxRedirects)
	}
	if was := via[len(via)-1].Method; req.Method != was {
		// 301, 302 and 303 turn what was to be stored or deleted into a question, and
		// its answer would look like success (RFC 9110, 15.4). Most often it is http
		// that is sent to https.
		return refused(req.URL, "redirect that makes a %s of a %s (is the url the right one?)", req.Method, was)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return refused(req.URL, "redirect from https to %s", req.URL.Scheme)
	}
	// Once away, always away: the way back to the first origin is the word of
	// another one.
	away := origin(req.URL) != origin(via[0].URL)
	for _, v := range via {
		away = away || origin(v.URL) != origin(via[0].URL)
	}
	if !away {
		return nil
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return refused(req.URL, "redirect of a %s to another host", req.Method)
	}
	for name := range req.Header {
		if !anonymous[name] {
			req.Header.Del(name)
		}
	}
	return nil
}

// refused is an error for which the target's scheme and host are enough: the
// rest of its URL may be secret.
func refused(target *url.URL, why string, args ...any) error {
	return backoff.Permanent(fmt.Errorf("%w: "+why+", to %s, refused", append(append([]any{ErrUnavailable}, args...), origin(target))...))
}

// Origin returns scheme, host and port of u, in one spelling.
func Origin(u *url.URL) string { return origin(u) }

func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// A peer is the address that a request was sent to. It is set before the
// answer comes.
type peer struct{ addr netip.Addr }

type peerKey struct{}

func (p *peer) set(addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		p.addr = tcp.AddrPort().Addr()
	}
}

// transport chooses how to send req: where any public address redirected to,
// only to public addresses. That is decided on the address connected to and not
// on what the name resolves to now, which can be another one a moment later.
func (rt *roundTripper) transport(req *http.Request) (*http.Transport, error) {
	anywhere, guarded := rt.any, rt.guarded
	if rt.strict != nil && !rt.home.has(req.URL.Hostname()) {
		anywhere, guarded = rt.strict.any, rt.strict.guarded
	}
	switch {
	case rt.opts.PublicOnly && req.URL.Scheme != "https":
		return nil, rt.notPublic(origin(req.URL) + " is asked by https only")
	case rt.opts.PublicOnly:
	case rt.opts.AllowPrivate || !rt.sentByPublic(req) && !rt.sentByHome(req):
		return anywhere, nil
	}
	if !rt.proxied(req) {
		return guarded, nil
	}
	// Only the proxy will know the address. An address in the URL itself is
	// plain enough.
	if host := req.URL.Hostname(); !rt.publicName(host) {
		if rt.opts.PublicOnly {
			return nil, rt.notPublic(origin(req.URL) + " is a private address")
		}
		return nil, refused(req.URL, "a public service sends to a private address (allow_private allows that)")
	}
	return anywhere, nil
}

// checkLogin refuses to send a password or token where everybody on the way can read
// it. This machine is not on the way.
func (rt *roundTripper) checkLogin(req *http.Request) error {
	if rt.opts.PlainLogin || req.URL.Scheme != "http" || isLoopback(req.URL.Hostname()) || !carriesLogin(req) {
		return nil
	}
	return backoff.Permanent(fmt.Errorf("%w: a login over plain http to another machine (%s) is refused: use https, or set plain_login = true",
		ErrNotAllowed, origin(req.URL)))
}

// loginWords are in the names of headers that carry a password or a token:
// Private-Token and Job-Token of GitLab, X-JFrog-Art-Api of Artifactory, Cookie.
var loginWords = []string{"authorization", "token", "cookie", "password", "secret", "api-key", "apikey", "art-api"}

// carriesLogin reports whether a password or a token is in the header of req or in
// its body. A form is the body of a login: token services take one (RFC 6749, 4.3
// and 6), and no backend sends a form for anything else.
func carriesLogin(req *http.Request) bool {
	for name, values := range req.Header {
		has := func(word string) bool { return strings.Contains(strings.ToLower(name), word) }
		if slices.ContainsFunc(loginWords, has) && !slices.ContainsFunc(values, isSignature) && strings.Join(values, "") != "" {
			return true
		}
	}
	mediaType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	_, marked := req.Context().Value(loginKey{}).(bool)
	return marked || mediaType == "application/x-www-form-urlencoded"
}

// isSignature reports whether a header proves that its sender knows a secret, and
// does not tell it: "SREGISTRY-HMAC-SHA256 …", "AWS4-HMAC-SHA256 …".
func isSignature(value string) bool {
	scheme, _, _ := strings.Cut(value, " ")
	return strings.Contains(strings.ToUpper(scheme), "-HMAC-")
}

type loginKey struct{}

// WithLogin returns ctx for a request whose body has a password or a token, and is
// no form: NewHTTPClient sends it over plain http only where it sends logins.
func WithLogin(ctx context.Context) context.Context { return context.WithValue(ctx, loginKey{}, true) }

func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// sentByPublic reports whether one of the hosts that redirected on the way to
// req has a public address. It need not be the first: a private registry may
// send to a public store, whose word counts no more for that.
func (rt *roundTripper) sentByPublic(req *http.Request) bool {
	for req.Response != nil {
		req = req.Response.Request
		if rt.isPublicHop(req) {
			return true
		}
	}
	return false
}

func (rt *roundTripper) isPublicHop(hop *http.Request) bool {
	if rt.proxied(hop) {
		return rt.publicName(hop.URL.Hostname())
	}
	p, ok := hop.Context().Value(peerKey{}).(*peer)
	return ok && p.addr.IsValid() && rt.public(p.addr)
}

func (rt *roundTripper) proxied(req *http.Request) bool {
	proxy, err := rt.any.Proxy(req)
	return err == nil && proxy != nil
}

func (rt *roundTripper) publicName(host string) bool { return publicHost(host, rt.public) }

// PublicHost judges a host by its spelling: a name is taken for public, unless
// it is one of this machine (RFC 6761, 6.3) or a number: inet_aton, which many a
// proxy resolves with, takes "127.1" and "0x7f000001" for addresses.
func PublicHost(host string) bool { return publicHost(host, isPublic) }

func publicHost(host string, public func(netip.Addr) bool) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return public(addr)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "localhost" && last != "" && (last[0] < '0' || last[0] > '9')
}

// controlAddress is the net.Dialer.Control of the guarded transport.
func (rt *roundTripper) controlAddress(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err == nil && rt.public(to.Addr()) {
		return nil
	}
	if rt.opts.PublicOnly {
		return rt.notPublic(address + " is a private address")
	}
	return backoff.Permanent(fmt.Errorf("%w: a public service sends to the private address %s, refused (allow_private allows that)", ErrUnavailable, address))
}

// notPublic is the error for what PublicOnly refuses.
func (rt *roundTripper) notPublic(why string) error {
	return backoff.Permanent(fmt.Errorf("%w: %s: a service that no configuration names has to be on the Internet, and is reached by https (to use it nevertheless, add it: sreg remote add)",
		ErrNotAllowed, why))
}

// private are blocks that package netip has no method for.
var private = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),    // carrier-grade NAT, RFC 6598
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's own services, within each virtual machine
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("::/96"),          // IPv4-compatible, RFC 4291, 2.5.5.1
	netip.MustParsePrefix("2001::/32"),      // Teredo: an IPv4 address is in it
	netip.MustParsePrefix("2002::/16"),      // 6to4: an IPv4 address follows
	netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64 within a network, RFC 8215
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address in the last four bytes

// isPublic reports whether addr is one of the whole Internet.
func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range private {
		if p.Contains(addr) {
			return false
		}
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate()
}
