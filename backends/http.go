// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// HTTPOptions tune NewHTTPClient. The zero value has the defaults.
type HTTPOptions struct {
	UserAgent      string
	TLS            *tls.Config   // custom CA; a client certificate and insecure are for home only, see AddHome; nil is the system's
	ConnectTimeout time.Duration // default 10 s
	HeaderTimeout  time.Duration // until the first byte of the answer; default 30 s, ten times that for what was uploaded
	IdleTimeout    time.Duration // the window in which a body, up or down, must keep MinRate; default 60 s
	MinRate        int64         // bytes a second that all bodies of one host together must bring; default 512
	PlainLogin     bool          // send passwords and tokens to other machines over http
	AllowPrivate   bool          // follow redirects and other words of a public service to private addresses
	PublicOnly     bool          // connect to public addresses only, whoever names them, and by https; wins over AllowPrivate

	Log *slog.Logger // gets each request with its answer, without what is secret, at debug level; nil drops them
}

// The defaults of HTTPOptions.
const (
	DefaultHeaderTimeout = 30 * time.Second
	DefaultIdleTimeout   = 60 * time.Second
	DefaultMinRate       = 512
)

// maxHeader is the size in bytes above which the header of an answer is refused.
const maxHeader = 256 << 10

// NewHTTPClient returns the client that every backend gets:
//
//   - HTTP/1.1 only, so that parallel ranges have a connection each; no
//     compression, so that a body is the bytes that were asked for.
//   - Proxies from the environment; TLS 1.2 or better.
//   - To another origin (scheme, host and port) a redirect carries only headers
//     that say nothing of the sender, and no body.
//   - What was meant is what arrives: no redirect that turns a PUT, POST, PATCH or
//     DELETE into a GET, and no page for people in answer to one.
//   - No redirect from https to http, and nothing that a public service says (a
//     redirect, an address in an answer) leads to a private, link-local or loopback
//     address: see AddHome. A registry inside a network may send within it.
//   - With PublicOnly no request goes to such an address, nor by http, whoever names it:
//     ErrNotAllowed.
//   - A least rate, and deadlines for silence, rather than a limit for the whole.
//     They are context.DeadlineExceeded.
func NewHTTPClient(opts HTTPOptions) *http.Client {
	opts.ConnectTimeout = cmp.Or(opts.ConnectTimeout, 10*time.Second)
	opts.HeaderTimeout = cmp.Or(opts.HeaderTimeout, DefaultHeaderTimeout)
	opts.IdleTimeout = cmp.Or(opts.IdleTimeout, DefaultIdleTimeout)
	opts.MinRate = cmp.Or(opts.MinRate, DefaultMinRate)
	rt := &roundTripper{opts: opts, public: isPublic}
	rt.any = newTransport(opts, nil)
	rt.guarded = newTransport(opts, rt.controlAddress)
	if opts.TLS != nil && (opts.TLS.InsecureSkipVerify || opts.TLS.GetClientCertificate != nil) {
		opts.TLS = opts.TLS.Clone()
		opts.TLS.InsecureSkipVerify, opts.TLS.GetClientCertificate = false, nil
		rt.strict = &roundTripper{any: newTransport(opts, nil), guarded: newTransport(opts, rt.controlAddress)}
	}
	return &http.Client{Transport: rt, CheckRedirect: checkRedirect}
}

// newTransport returns a transport; control, if not nil, may refuse an address
// before it is connected to.
func newTransport(opts HTTPOptions, control func(network, address string, c syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Timeout: opts.ConnectTimeout, KeepAlive: 30 * time.Second, Control: control}
	config := &tls.Config{}
	if opts.TLS != nil {
		config = opts.TLS.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: opts.ConnectTimeout,
		Protocols:           protocols,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		// Of each header that a service sends, some are kept: next pages, tokens.
		MaxResponseHeaderBytes: maxHeader,
	}
}

// A roundTripper sends requests with the deadlines of its options.
type roundTripper struct {
	opts    HTTPOptions
	any     *http.Transport
	guarded *http.Transport // connects to public addresses only
	strict  *roundTripper   // the same two for hosts that are not the home: they need a certificate, and get none of ours; nil where there is no difference
	public  func(netip.Addr) bool
	hosts   hosts
	home    home
}

// RoundTrip implements http.RoundTripper.
func (rt *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	to, release := rt.hosts.take(req.URL.Host)
	ctx, dog := watch(req.Context(), rt.opts.IdleTimeout, release)
	peer := new(peer)
	ctx = httptrace.WithClientTrace(context.WithValue(ctx, peerKey{}, peer), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			peer.set(info.Conn.RemoteAddr())
			rt.met(req, peer.addr)
		},
		WroteRequest: func(httptrace.WroteRequestInfo) { dog.expect(rt.headerTimeout(req)) },
	})
	out := req.Clone(ctx)
	if out.Header.Get("User-Agent") == "" && rt.opts.UserAgent != "" {
		out.Header.Set("User-Agent", rt.opts.UserAgent)
	}
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &watchedUpload{ReadCloser: out.Body, dog: dog, rate: newRateWatch(to, rt.opts.MinRate, rt.opts.IdleTimeout, dog.cancel)}
	}
	transport, err := rt.transport(out)
	if err == nil {
		err = rt.checkLogin(out)
	}
	if err != nil {
		closeRequest(out)
		dog.end()
		return nil, err
	}
	resp, err := rt.exchange(transport, out)
	if err != nil {
		// Where one connection has lost its other end the idle ones often have, too:
		// the next try is to make a new one.
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			transport.CloseIdleConnections()
		}
		err = dog.reason(ctx, err)
		dog.end()
		return nil, err
	}
	dog.answered()
	resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: ctx, dog: dog, rate: newRateWatch(to, rt.opts.MinRate, rt.opts.IdleTimeout, dog.cancel)}
	if isPage(req.Method, resp) {
		resp.Body.Close()
		return nil, backoff.Permanent(fmt.Errorf("%w: a page for people in answer to a %s (is there a network to sign in to?)", ErrUnavailable, req.Method))
	}
	return resp, nil
}

// isPage reports whether the answer to a request that was to change something is a page: one
// from a network's sign-in, say, with status 200. Only by its type it is none: some
// servers say text/html of everything. Nor is what comes with 201 or 202, which is the word of
// a service that has read the request: Apache's mod_dav and OpenStack Swift say it in a page.
func isPage(method string, resp *http.Response) bool {
	if method == http.MethodGet || method == http.MethodHead || resp.StatusCode/100 != 2 ||
		resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusAccepted {
		return false
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "text/html" && mediaType != "application/xhtml+xml" {
		return false
	}
	head := bufio.NewReader(resp.Body)
	text, _ := head.Peek(pageStart) // less of it will do
	resp.Body = struct {
		io.Reader
		io.Closer
	}{head, resp.Body}
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("<"))
}

// pageStart is how many bytes may be white before a page begins.
const pageStart = 512

// headerTimeout gives a service time to look at what was uploaded.
func (rt *roundTripper) headerTimeout(req *http.Request) time.Duration {
	switch req.Method {
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		return 10 * rt.opts.HeaderTimeout
	}
	return rt.opts.HeaderTimeout
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (rt *roundTripper) CloseIdleConnections() {
	rt.any.CloseIdleConnections()
	rt.guarded.CloseIdleConnections()
	if rt.strict != nil {
		rt.strict.CloseIdleConnections()
	}
}

func closeRequest(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
