// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

// A home is the hosts that the configuration names, or that are a service's own. To
// these requests go wherever they are. Every other host was named by an answer: in a
// redirect, a challenge, a document. A public service must not have us ask a private
// network, so its words lead to public addresses only, and that is decided on the
// address that is connected to.
type home struct {
	mu    sync.Mutex // guards the fields below
	hosts map[string]bool
	met   map[netip.Addr]bool // where they were connected to, at last
}

// maxMet is how many addresses are remembered.
const maxMet = 64

// AddHome tells hc, which NewHTTPClient made, of addresses that are the service's
// own: "https://HOST[:PORT]/…" or "HOST[:PORT]". Others are passed over, and any
// other client is left as it is. A client that is told of none takes the first host
// that it asks for its home.
func AddHome(hc *http.Client, addresses ...string) {
	rt, ok := hc.Transport.(*roundTripper)
	if !ok {
		return
	}
	for _, a := range addresses {
		if !strings.Contains(a, "://") {
			a = "https://" + a
		}
		if u, err := url.Parse(a); err == nil && u.Hostname() != "" {
			rt.home.add(u.Hostname())
		}
	}
}

func (h *home) add(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hosts == nil {
		h.hosts = map[string]bool{}
	}
	h.hosts[strings.ToLower(host)] = true
}

// has reports whether host belongs to it.
func (h *home) has(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hosts) == 0 {
		h.hosts = map[string]bool{strings.ToLower(host): true}
	}
	return h.hosts[strings.ToLower(host)]
}

// meet notes the address that one of the hosts has.
func (h *home) meet(at netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.met == nil || len(h.met) >= maxMet {
		h.met = map[netip.Addr]bool{}
	}
	h.met[at] = true
}

// isPublic reports whether one of the hosts has a public address; before any was
// connected to, or behind a proxy, whether one looks like it.
func (h *home) isPublic(public func(netip.Addr) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at := range h.met {
		if public(at) {
			return true
		}
	}
	if len(h.met) > 0 {
		return false
	}
	for host := range h.hosts {
		if publicHost(host, public) {
			return true
		}
	}
	return false
}

// sentByHome reports whether a host that is public has named the host of req. What
// it redirects to is judged by sentByPublic, which looks at the whole chain.
func (rt *roundTripper) sentByHome(req *http.Request) bool {
	return req.Response == nil && !rt.home.has(req.URL.Hostname()) && rt.home.isPublic(rt.public)
}

// met notes where a request went that nobody but the configuration sent.
func (rt *roundTripper) met(req *http.Request, at netip.Addr) {
	if req.Response != nil || !rt.home.has(req.URL.Hostname()) {
		return
	}
	if at.IsValid() && !rt.proxied(req) {
		rt.home.meet(at)
	}
}
