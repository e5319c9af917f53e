// SPDX-License-Identifier: Apache-2.0

// Package gcstest is a Google Cloud Storage for tests: one bucket, with as much of the JSON API
// as images need, and what gives access tokens to service accounts. Every request is held
// against Google's description of the API (testdata/storage-api.json), and every answer too.
// What that does not describe, sessions of uploads, is written after
// https://cloud.google.com/storage/docs/performing-resumable-uploads, and tried with rclone,
// which has Google's own client.
//
// It is strict: what Google would refuse, or what only happens to work there, is an error of
// the test. It is no emulator: no projects, no permissions but a login's. Start at [Start].
package gcstest

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// Token is an access token that a server takes until Expire.
const Token = "ya29.first"

// Bucket is the name of the bucket.
const Bucket = "images"

// Options change what a server does. The zero value is Google's, of a private bucket.
type Options struct {
	PageSize     int  // the most objects and folders of a page; default 1000
	Versioned    bool // the bucket keeps versions that were replaced
	Uniform      bool // it has uniform bucket-level access
	Public       bool // everybody may read
	RewriteCalls int  // how many calls a copy takes; default 1
}

// A Server is one bucket. All methods may be called from many goroutines.
type Server struct {
	URL string

	opts   Options
	tb     testing.TB
	api    description
	bodies *bodytest.Store

	mu         sync.Mutex // guards the fields below
	objects    map[string][]*object
	sessions   map[string]*session
	readers    map[string][]string // entities by object
	tokens     map[string]bool
	accounts   map[string]*rsa.PublicKey // by e-mail address
	generation int64
	counter    int
	requests   map[string]int // by what is asked for
	hook       Hook
}

// A Hook may answer a request in the place of the server, and then returns true. what is the
// id of the API's method, "storage.objects.get", "media" for an object's bytes, or "session".
type Hook func(what string, w http.ResponseWriter, r *http.Request) bool

// Start starts a server on 127.0.0.1, which ends with tb.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if opts.PageSize == 0 {
		opts.PageSize = 1000
	}
	s := &Server{
		opts: opts, tb: tb, api: describe(tb), bodies: bodytest.Open(tb), objects: map[string][]*object{}, sessions: map[string]*session{},
		readers: map[string][]string{}, tokens: map[string]bool{Token: true}, accounts: map[string]*rsa.PublicKey{},
		generation: 1_700_000_000_000_000, requests: map[string]int{},
	}
	server := httptest.NewServer(s)
	tb.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// SetHook lets hook see every request first; nil ends that.
func (s *Server) SetHook(hook Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Count returns how many requests came for what a Hook is told; "" counts all.
func (s *Server) Count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what != "" {
		return s.requests[what]
	}
	n := 0
	for _, count := range s.requests {
		n += count
	}
	return n
}

// Expire lets the server take no token that it took.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
	clear(s.accounts)
}

// Accept lets the server take a token.
func (s *Server) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = true
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	switch {
	case path == "/token":
		s.serveToken(w, r)
	case strings.HasPrefix(path, "/"+Bucket+"/"):
		s.serveLink(w, r)
	default:
		s.serveAPI(w, r)
	}
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	c, err := s.api.parse(r)
	if err == nil && s.hooked(c.what, w, r) {
		return
	}
	if err == nil {
		err = c.read()
	}
	if _, broken := errors.AsType[net.Error](err); broken || errors.Is(err, io.ErrUnexpectedEOF) {
		return // the body stopped short
	}
	if err != nil {
		s.tb.Errorf("gcstest: %s %s: %v", r.Method, r.URL, err)
		fail(w, http.StatusNotFound, "notFound", "Not Found")
		return
	}
	c.server, c.w, c.r, c.q = s, w, r, r.URL.Query()
	if !c.allowed() {
		return
	}
	if bucket := c.path["bucket"] + c.path["sourceBucket"]; bucket != Bucket {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	serve := map[string]func(*call){
		"storage.objects.get": (*call).get, "storage.objects.list": (*call).list, "storage.objects.insert": (*call).insert,
		"storage.objects.delete": (*call).remove, "storage.objects.rewrite": (*call).rewrite, "storage.objectAccessControls.insert": (*call).allow,
		"media": (*call).serveMedia, "session": (*call).session,
	}[c.what]
	serve(c)
}

// hooked counts a request, and reports whether the hook has answered it.
func (s *Server) hooked(what string, w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.requests[what]++
	hook := s.hook
	s.mu.Unlock()
	return hook != nil && hook(what, w, r)
}

// allowed reports whether the login may do it, and answers if not.
func (c *call) allowed() bool {
	token, sent := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	c.server.mu.Lock()
	good := c.server.tokens[token]
	c.server.mu.Unlock()
	switch {
	case good, !sent && c.server.opts.Public && c.r.Method == http.MethodGet:
		return true
	case sent:
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
		fail(c.w, http.StatusUnauthorized, "authError", "Invalid Credentials")
	default:
		fail(c.w, http.StatusUnauthorized, "required", "Anonymous caller does not have storage.objects access to the Google Cloud Storage bucket.")
	}
	return false
}

// fail answers as https://cloud.google.com/storage/docs/json_api/v1/status-codes shows.
func fail(w http.ResponseWriter, status int, reason, message string) {
	type one struct {
		Domain  string `json:"domain"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	var v struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Errors  []one  `json:"errors"`
		} `json:"error"`
	}
	v.Error.Code, v.Error.Message, v.Error.Errors = status, message, []one{{"global", reason, message}}
	text, _ := json.MarshalIndent(v, "", " ")
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// answer sends what has to be of the method's answer.
func (c *call) answer(v map[string]any) {
	c.server.api.check(c.server.tb, c.response, v)
	if fields := c.q.Get("fields"); fields != "" && c.what != "session" {
		var err error
		if v, err = choose(v, fields); err != nil {
			c.server.tb.Errorf("gcstest: fields=%s: %v", fields, err)
		}
	}
	c.w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_ = json.NewEncoder(c.w).Encode(v)
}

// precondition compares the generation that the condition names, if there is one, with what
// there is; 0 means nothing. It answers if they are not the same.
func (c *call) precondition(now int64) bool {
	want := c.q.Get("ifGenerationMatch")
	if want == "" || want == fmt.Sprint(now) {
		return true
	}
	fail(c.w, http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
	return false
}
