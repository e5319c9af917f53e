// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"crypto/rand"
	"net/http/httputil"
	"net/url"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/http/webtest"
)

func (s *script) startWeb(ts *testscript.TestScript, _ bool, args []string) {
	opts := webtest.Options{Log: slices.Contains(args, "log"), JSON: slices.Contains(args, "json")}
	if slices.Contains(args, "login") {
		opts.User, opts.Password = "me", "hunter2"
	}
	start := webtest.Nginx
	if slices.Contains(args, "dav") {
		start = webtest.ApacheDAV
	}
	s.web = start(s.t, opts)
	ts.Setenv("WEB", s.web.URL)
	ts.Setenv("WEB_ROOT", s.web.Root)
	ts.Setenv("WEB_LOG", s.web.Log)
}

func (s *script) serveWeb(ts *testscript.TestScript, _ bool, hosts []string) {
	at, err := url.Parse(s.web.URL)
	ts.Check(err)
	for _, host := range hosts {
		s.internet.Serve(host, &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(at) }})
	}
}

func (s *script) webExpire(*testscript.TestScript, bool, []string) { s.web.Login("me", rand.Text()) }

func (s *script) webAccept(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: web-accept PASSWORD")
	}
	s.web.Login("me", args[0])
}
