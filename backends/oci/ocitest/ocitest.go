// SPDX-License-Identifier: Apache-2.0

// Package ocitest starts a real registry for tests: Debian's docker-registry on
// a port of 127.0.0.1 with its storage in a temporary directory, behind a proxy
// in this process that logs every request and can inject faults.
//
// It is no fake: what it accepts and answers is what the registry does. Begin
// at [Start]; [Registry.PushSIF] seeds an image by plain HTTP, [Registry.Use]
// injects faults, [Registry.Requests] and [Registry.Count] tell what was asked.
package ocitest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say how the registry behaves. The zero value is an open registry
// that refuses to delete.
type Options struct {
	Delete   bool // allow the deletion of manifests and blobs
	InMemory bool // for thousands of small images: what is stored is gone when the process ends

	// User and Password, if set, are needed for every request: as Basic
	// credentials, or with TokenAuth at the token service that a Bearer
	// challenge names.
	User, Password string
	TokenAuth      bool
	AnonymousPull  bool // with TokenAuth: no credentials are needed to pull
	IdentityToken  string
	// CatalogStatus, if set, is what the token service answers where a token for the
	// catalogue is wanted. Services differ: no such action in the token, 403, or 400.
	CatalogStatus int
}

// A Registry is a running docker-registry. Its methods may be called from many
// goroutines at once.
type Registry struct {
	URL  string // of the proxy: "http://127.0.0.1:PORT"
	Host string // "127.0.0.1:PORT"

	t      testing.TB
	opts   Options
	config string
	tokens *tokenService
	client *http.Client // for seeds

	mu     sync.Mutex // guards the fields below
	cmd    *exec.Cmd
	target *url.URL
	faults []Middleware
	log    []Request
	seeded map[string]bool // repositories that PushSIF has pushed to
}

// A Middleware stands between the client and the registry.
type Middleware func(next http.Handler) http.Handler

// Start runs a registry until the test ends. Where docker-registry is not
// installed the test is skipped, or fails if SREGFS_NOSKIP=1.
func Start(t testing.TB, opts Options) *Registry {
	t.Helper()
	Need(t, "docker-registry")
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r := &Registry{
		t: t, opts: opts, config: filepath.Join(t.TempDir(), "config.yml"), client: &http.Client{Transport: transport},
	}
	if opts.TokenAuth {
		r.tokens = startTokenService(t, opts)
	}
	r.writeConfig()
	r.Restart()
	t.Cleanup(r.Stop)
	proxy := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(proxy.Close)
	r.URL, r.Host = proxy.URL, strings.TrimPrefix(proxy.URL, "http://")
	return r
}

// Need skips the test where one of the programs is not installed, or fails it
// if SREGFS_NOSKIP=1.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		_, err := exec.LookPath(name)
		switch {
		case err != nil && os.Getenv("SREGFS_NOSKIP") == "1":
			t.Fatalf("%s is not installed and SREGFS_NOSKIP=1 allows no skip", name)
		case err != nil:
			t.Skipf("%s is not installed", name)
		}
	}
}

func (r *Registry) writeConfig() {
	r.t.Helper()
	dir := filepath.Dir(r.config)
	storage := fmt.Sprintf("filesystem: {rootdirectory: %q}", r.Storage())
	if r.opts.InMemory {
		storage = "inmemory: {}"
	}
	text := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  %s
  delete: {enabled: %v}
http: {addr: "127.0.0.1:0", secret: "uploads go on after a restart"}
`, storage, r.opts.Delete)
	switch {
	case r.opts.TokenAuth:
		cert := filepath.Join(dir, "token.pem")
		r.must(os.WriteFile(cert, r.tokens.cert, 0o600))
		text += fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}}\n",
			r.tokens.url, tokenServiceName, tokenIssuer, cert)
	case r.opts.User != "":
		Need(r.t, "htpasswd")
		line, err := exec.CommandContext(r.t.Context(), "htpasswd", "-Bbn", r.opts.User, r.opts.Password).Output()
		r.must(err)
		passwords := filepath.Join(dir, "htpasswd")
		r.must(os.WriteFile(passwords, bytes.TrimSpace(line), 0o600))
		text += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", passwords)
	}
	r.must(os.WriteFile(r.config, []byte(text), 0o600))
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// findAddr sends the address that the log names, or else the log, and drains
// the rest of it.
func findAddr(log io.Reader, started chan<- string) {
	var text strings.Builder
	found := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil && !found {
			started <- m[1]
			found = true
		} else if !found {
			text.WriteString(lines.Text() + "\n")
		}
	}
	if !found {
		started <- text.String()
	}
}

// Restart ends the registry process, if one runs, without warning and starts a
// new one on the same storage. The URL stays.
func (r *Registry) Restart() {
	r.t.Helper()
	r.Stop()
	// Not CommandContext: t.Context ends before the cleanups, which may still
	// want to ask the registry something.
	cmd := exec.Command("docker-registry", "serve", r.config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	stderr, err := cmd.StderrPipe()
	r.must(err)
	r.must(cmd.Start())
	started := make(chan string, 1)
	go findAddr(stderr, started) // ends with the process
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	host := "no answer in 30 s"
	select {
	case host = <-started:
	case <-timer.C:
	}
	if !strings.HasPrefix(host, "127.0.0.1:") {
		cmd.Process.Kill()
		cmd.Wait()
		r.t.Fatalf("docker-registry does not start: %s", host)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.target = cmd, &url.URL{Scheme: "http", Host: host}
}

// Stop kills the registry process: requests give 502 until Restart.
func (r *Registry) Stop() {
	r.mu.Lock()
	cmd := r.cmd
	r.cmd = nil
	r.mu.Unlock()
	if cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// Storage returns the directory in which the registry keeps everything.
func (r *Registry) Storage() string { return filepath.Join(filepath.Dir(r.config), "storage") }

// Use puts m before the registry, in front of what was put there before.
func (r *Registry) Use(m Middleware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, m)
}

// Heal takes all middlewares away.
func (r *Registry) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	target, faults := r.target, r.faults
	r.mu.Unlock()
	// A connection of its own for each request: one that the registry is just
	// closing, as it does after a broken upload, would fail the next one.
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var handler http.Handler = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // the registry builds its Location headers from it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	for _, m := range faults {
		handler = m(handler)
	}
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	body := &countReader{ReadCloser: req.Body}
	req.Body = body
	defer func() { // also when a fault aborts the answer by a panic
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, Request{
			Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery, Header: req.Header,
			Status: rec.status, In: body.n, Out: rec.n,
		})
	}()
	handler.ServeHTTP(rec, req)
}

func (r *Registry) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// Latency delays every request by d.
func Latency(d time.Duration) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			ctx, cancel := context.WithTimeout(req.Context(), d)
			<-ctx.Done()
			cancel()
			next.ServeHTTP(w, req)
		})
	}
}
