// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"crypto/tls"
	"net/http"
	"time"
)

// HTTPOptions tune NewHTTPClient. The zero value has the defaults.
type HTTPOptions struct {
	UserAgent      string
	TLS            *tls.Config   // custom CA, client certificate, or insecure; nil is the system's
	ConnectTimeout time.Duration // default 10 s
	HeaderTimeout  time.Duration // until the first byte of the answer; default 30 s
	IdleTimeout    time.Duration // between two reads of a body; default 60 s
	AllowPrivate   bool          // follow redirects from public to private addresses
}

// NewHTTPClient returns the client that every backend gets: HTTP/1.1 only, so
// that parallel ranges have a connection each; proxies from the environment;
// no credentials to another origin than they were meant for; no redirect from
// https to http, nor from a public to a private address (durability.md D, cases
// 66 and 69); deadlines for silence rather than for the whole.
func NewHTTPClient(opts HTTPOptions) *http.Client { panic("TODO") }
