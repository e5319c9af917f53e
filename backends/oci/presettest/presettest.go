// SPDX-License-Identifier: Apache-2.0

// Package presettest fakes what Docker Hub, GitHub, Quay, GitLab, Harbor, NGC and
// ECR have beside a registry: the APIs that list repositories, and the oddities
// of logins. The images themselves are in a real registry (package ocitest).
//
// Each fake API answers from the vendor's published description, and every
// request and answer is compared with a table of that description (spec.go): what
// is not in it fails the test. Begin at [Start] for the APIs, and at [HubLimits],
// [NGC] and [ECR] for what stands before a registry.
package presettest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say how a service behaves. The zero value holds nothing.
type Options struct {
	// Repositories returns what there is in a namespace ("" is in all), as
	// "namespace/name". It is asked for each page.
	Repositories func(namespace string) []string
	// Private are the namespaces whose repositories only the user sees.
	Private []string
	// Users are the namespaces that are no organization or group.
	Users []string
	// Empty are namespaces that exist and hold nothing.
	Empty func() []string

	User, Password string
}

// A Service is a running fake of one API. Its methods may be called from many
// goroutines at once.
type Service struct {
	URL string // of the API, as the setting "api" wants it

	t    testing.TB
	typ  string
	opts Options
	spec []Operation

	mu       sync.Mutex // guards the fields below
	seen     []string   // "GET /path?query"
	password string
	jwt      int       // number of the token that is good
	left     int       // requests that are allowed still
	reset    time.Time // when more are
}

const allowed = 180 // requests in a time, by all of the services

// Start runs the API of a type of remote, as the configuration names it, until
// the test ends.
func Start(t testing.TB, typ string, opts Options) *Service {
	t.Helper()
	s := &Service{t: t, typ: typ, opts: opts, spec: Specs[typ], password: opts.Password, left: allowed, jwt: 1}
	if s.spec == nil {
		t.Fatalf("no API of %q is faked", typ)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	if typ == "gitlab" {
		s.URL += "/api/v4"
	}
	return s
}

// Requests returns what was asked so far, as "GET /path?query".
func (s *Service) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// Forget empties the log.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// Expire makes the password one of the past, and what was given out for it.
func (s *Service) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = "expired"
	s.jwt++
}

// ExpireTokens makes worthless what was given out for the password.
func (s *Service) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jwt++
}

// Limit lets the service answer n requests more, until a time.
func (s *Service) Limit(n int, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.reset = n, until
}

// ServeHTTP answers one request, and compares it and the answer with the
// description.
func (s *Service) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the client is gone
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	s.seen = append(s.seen, req.Method+" "+req.URL.RequestURI())
	over := s.left <= 0
	if !over {
		s.left--
	}
	s.mu.Unlock()
	op, params := find(s.spec, req)
	if op == nil {
		s.t.Errorf("%s: %s %s is in no description", s.typ, req.Method, req.URL)
		http.NotFound(w, req)
		return
	}
	for _, fault := range op.checkRequest(req, body) {
		s.t.Errorf("%s: %s %s: %s (%s)", s.typ, req.Method, req.URL, fault, op.Source)
	}
	rec := httptest.NewRecorder()
	rec.Header().Set("Content-Type", "application/json")
	s.meter(rec.Header())
	if over {
		s.refuse(rec)
	} else {
		s.answer(rec, req, op, params)
	}
	for _, fault := range op.checkAnswer(rec.Code, rec.Header(), rec.Body.Bytes()) {
		s.t.Errorf("%s: the fake's answer to %s %s: %s (%s)", s.typ, req.Method, req.URL, fault, op.Source)
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

// meter sets the headers that tell what is left.
func (s *Service) meter(h http.Header) {
	s.mu.Lock()
	left, reset := s.left, s.reset
	s.mu.Unlock()
	if reset.IsZero() {
		reset = time.Now().Add(time.Minute)
	}
	prefix := map[string]string{"docker": "X-RateLimit-", "ghcr": "X-RateLimit-", "gitlab": "RateLimit-"}[s.typ]
	if prefix != "" {
		h.Set(prefix+"Limit", strconv.Itoa(allowed))
		h.Set(prefix+"Remaining", strconv.Itoa(left))
		h.Set(prefix+"Reset", strconv.FormatInt(reset.Unix(), 10))
	}
}

// refuse answers a request too many, each service in its way.
func (s *Service) refuse(rec *httptest.ResponseRecorder) {
	s.mu.Lock()
	reset := s.reset
	s.mu.Unlock()
	switch s.typ {
	case "ghcr":
		problem(rec, http.StatusForbidden, "API rate limit exceeded for user ID 1.")
	case "docker":
		rec.Header().Set("X-Retry-After", strconv.FormatInt(reset.Unix(), 10))
		problem(rec, http.StatusTooManyRequests, "Too many requests")
	default:
		rec.Header().Set("Retry-After", strconv.Itoa(int(time.Until(reset).Seconds())+1))
		problem(rec, http.StatusTooManyRequests, "Retry later")
	}
}

func problem(rec *httptest.ResponseRecorder, status int, message string) {
	rec.WriteHeader(status)
	fmt.Fprintf(rec, `{"message":%q}`, message)
}

func give(rec *httptest.ResponseRecorder, v any) {
	rec.WriteHeader(http.StatusOK)
	if err := json.NewEncoder(rec).Encode(v); err != nil {
		panic(err) // these are our own maps
	}
}

// visible returns the repositories below a namespace that the asker sees, and
// whether there is such a namespace.
func (s *Service) visible(namespace string, known bool) (repos []string, exists bool) {
	if slices.Contains(s.opts.Private, namespace) && !known {
		return nil, false
	}
	if s.opts.Empty != nil {
		exists = slices.Contains(s.opts.Empty(), namespace)
	}
	for _, repo := range s.opts.Repositories(namespace) {
		first, _, _ := strings.Cut(repo, "/")
		if namespace == "" && (known || !slices.Contains(s.opts.Private, first)) {
			repos = append(repos, repo)
		}
		if namespace != "" && (repo == namespace || strings.HasPrefix(repo, namespace+"/")) {
			repos, exists = append(repos, repo), true
		}
	}
	slices.Sort(repos)
	return repos, exists || namespace == ""
}

// page cuts the page that a request asks for out of all; size is the service's
// name for how many are on one. next is 0 after the last one.
func page(req *http.Request, all []string, size string, otherwise int) (part []string, next int) {
	n, err := strconv.Atoi(req.URL.Query().Get(size))
	if err != nil {
		n = otherwise
	}
	at, err := strconv.Atoi(req.URL.Query().Get("page"))
	if err != nil {
		at = 1
	}
	from := min((at-1)*n, len(all))
	to := min(from+n, len(all))
	if to < len(all) {
		next = at + 1
	}
	return all[from:to], next
}

// withPage returns the address of a request with another page.
func withPage(req *http.Request, value int) string {
	u := *req.URL
	q := u.Query()
	q.Set("page", strconv.Itoa(value))
	u.RawQuery = q.Encode()
	return u.RequestURI()
}
