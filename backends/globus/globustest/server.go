// SPDX-License-Identifier: Apache-2.0

// Package globustest is Globus in memory, written from https://docs.globus.org/api: Globus Auth,
// the Transfer API v0.10, and the HTTPS servers of collections. Its answers have the fields of
// Globus's own, see fixtures_test.go. What a real collection does badly this one does too: half
// an upload is a file, a delete waits for its turn, times are whole seconds, and nothing has an
// ETag. Start at [Start].
package globustest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// The app that logs in by itself, and the one by which people do. The second secret is taken
// once Accept was called.
const (
	App          = "11111111-2222-3333-4444-555555555555"
	Secret       = "globus-secret-one"
	SecondSecret = "globus-secret-two"
	NativeApp    = "99999999-8888-7777-6666-555555555555"
)

// Options are what collections differ in.
type Options struct {
	NoReplace      bool // a rename does not replace what is there
	NoLastModified bool // the HTTPS servers do not tell the time of a file
	NoRange        bool // they send whole files only
	Polls          int  // how many requests a task waits for; 0 means 2
}

// A Server is Globus.
type Server struct {
	URL string

	t    testing.TB
	opts Options

	mu          sync.Mutex // guards the fields below
	collections map[string]*collection
	order       []string
	secrets     map[string]bool
	tokens      map[string]grant
	codes       map[string]authorization
	submissions map[string]bool // whether it was used
	tasks       map[string]*task
	requests    map[string]int
}

// A collection is one of the places that keep files.
type collection struct {
	Collection

	id      string
	nodes   map[string]*node // by absolute path
	data    *httptest.Server
	refusal *Refusal // of each operation; nil if there is none
	fault   Fault    // of its tasks
	ill     int      // how many requests its HTTPS server fails
}

// A Refusal is an error of the Transfer API.
type Refusal struct {
	Status        int
	Code, Message string
	More          map[string]any
}

// A Fault is what becomes of tasks: with NiceStatus they have it and are not done; Fatal is the
// code with which they fail once their turn has come.
type Fault struct {
	NiceStatus string
	Paused     bool
	Fatal      string
}

// A Collection says what one is like.
type Collection struct {
	Name       string
	NoHTTPS    bool   // it has no HTTPS server
	Public     bool   // everybody may read
	DataAccess bool   // consent is needed to access its data
	Domain     string // sessions have to be of an identity of that domain
	Gateway    bool   // it is none, but what they are made by
	Others     bool   // it belongs to others, and is found by a search only
}

type node struct {
	dir      bool
	content  []byte
	modified time.Time
}

// Start starts a Globus without collections.
func Start(t testing.TB, opts Options) *Server {
	s := &Server{
		t: t, opts: opts, collections: map[string]*collection{}, secrets: map[string]bool{Secret: true}, tokens: map[string]grant{},
		codes: map[string]authorization{}, submissions: map[string]bool{}, tasks: map[string]*task{}, requests: map[string]int{},
	}
	if s.opts.Polls == 0 {
		s.opts.Polls = 2
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/oauth2/authorize", s.authorize)
	mux.HandleFunc("POST /v2/oauth2/token", s.token)
	for pattern, handler := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /v0.10/endpoint_search":                 s.endpointSearch,
		"GET /v0.10/endpoint/{id}":                   s.getEndpoint,
		"GET /v0.10/submission_id":                   s.submissionID,
		"POST /v0.10/delete":                         s.submitDelete,
		"GET /v0.10/task/{id}":                       s.getTask,
		"POST /v0.10/task/{id}/cancel":               s.cancelTask,
		"GET /v0.10/operation/endpoint/{id}/ls":      s.ls,
		"GET /v0.10/operation/endpoint/{id}/stat":    s.stat,
		"POST /v0.10/operation/endpoint/{id}/mkdir":  s.mkdir,
		"POST /v0.10/operation/endpoint/{id}/rename": s.rename,
	} {
		mux.HandleFunc(pattern, s.transfer(handler))
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Add makes a collection and returns its UUID.
func (s *Server) Add(c Collection) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := newID()
	made := &collection{Collection: c, id: id, nodes: map[string]*node{"": {dir: true, modified: now()}}}
	made.data = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveData(made, w, r) }))
	s.t.Cleanup(made.data.Close)
	s.collections[id] = made
	s.order = append(s.order, id)
	return id
}

// Put puts a file into a collection, and the folders above it.
func (s *Server) Put(id, path string, content []byte, modified time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collections[id]
	path = "/" + strings.Trim(path, "/")
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && c.nodes[path[:i]] == nil {
			c.nodes[path[:i]] = &node{dir: true, modified: now()}
		}
	}
	c.nodes[path] = &node{content: content, modified: modified.UTC().Truncate(time.Second)}
}

// Settle lets all tasks have their turn.
func (s *Server) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		for t.waits > 0 {
			s.advance(t)
		}
	}
}

// Refuse answers with that to each operation on a collection, until it is called with nil.
func (s *Server) Refuse(id string, r *Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collections[id].refusal = r
}

// Fail lets the HTTPS server of a collection fail that many requests.
func (s *Server) Fail(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collections[id].ill = n
}

// Break makes the tasks of a collection end like that.
func (s *Server) Break(id string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collections[id].fault = f
}

// Paths returns the paths of all files of a collection, hidden ones too.
func (s *Server) Paths(id string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, n := range s.collections[id].nodes {
		if !n.dir {
			all = append(all, path)
		}
	}
	return all
}

// Accept takes that secret of App from now on.
func (s *Server) Accept(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[secret] = true
}

// Expire ends all tokens, and takes no secret and no refresh token that it took before.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.secrets)
	clear(s.tokens)
}

// Lapse ends all access tokens; what gets new ones stays good.
func (s *Server) Lapse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, g := range s.tokens {
		if !g.refresh {
			delete(s.tokens, text)
		}
	}
}

// Requests returns how many requests there were since the last call, by their kind: the last
// part of a path of the API that is no UUID, or the method at an HTTPS server.
func (s *Server) Requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.requests
	s.requests = map[string]int{}
	return was
}

func (s *Server) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[kind]++
	for _, t := range s.tasks {
		s.advance(t)
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// An object is a document of JSON.
type object = map[string]any

// refuse answers with an error as the Transfer API does.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, message string, more object) {
	doc := object{"code": code, "message": message, "request_id": "aBcDeF123"}
	if status != http.StatusUnauthorized {
		doc["resource"] = r.URL.Path
	}
	for key, value := range more {
		doc[key] = value
	}
	answer(w, status, doc)
}
