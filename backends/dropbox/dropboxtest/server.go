// SPDX-License-Identifier: Apache-2.0

// Package dropboxtest is a Dropbox for tests: as much of its API as images need,
// written after the published specification
// (https://github.com/dropbox/dropbox-api-spec) and tried with Dropbox's own
// Python library.
//
// It is strict: what Dropbox would refuse, or what only happens to work there,
// is an error. It is no emulator: no accounts, no sharing of folders. Start at
// [Start].
package dropboxtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// Token is an access token that a server takes until Expire.
const Token = "sl.first"

// Options change what a server does. The zero value is Dropbox.
type Options struct {
	TLS          bool   // speak https, with the certificate of net/http/httptest
	PageSize     int    // the most entries of one page; default 2000
	LowerParents bool   // tell folders within a path in lower case, as Dropbox may
	AppKey       string // what logins must name; default "app"
}

// A Server is one account. All methods may be called from many goroutines.
type Server struct {
	URL  string
	HTTP *httptest.Server

	opts   Options
	t      testing.TB
	bodies *bodytest.Store

	requests atomic.Int64

	mu       sync.Mutex // guards the fields below
	nodes    map[string]*node
	revs     map[string]*node
	log      []string // lower-case paths, in the order in which they changed
	changed  chan struct{}
	cursors  map[string]cursor
	sessions map[string]*session
	links    map[string]string
	tokens   map[string]bool
	codes    map[string]string // challenges by code
	counter  int
	routes   map[string]int
	hook     Hook
}

// A Hook may answer a request in the place of the server, and then returns true.
type Hook func(route string, w http.ResponseWriter, r *http.Request) bool

// Start starts a server on 127.0.0.1, which ends with t. Whatever a client does
// that Dropbox forbids is an error of t too.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.PageSize == 0 {
		opts.PageSize = 2000
	}
	if opts.AppKey == "" {
		opts.AppKey = "app"
	}
	s := &Server{
		opts: opts, t: t, bodies: bodytest.Open(t), nodes: map[string]*node{}, revs: map[string]*node{}, changed: make(chan struct{}), cursors: map[string]cursor{},
		sessions: map[string]*session{}, links: map[string]string{}, tokens: map[string]bool{Token: true}, codes: map[string]string{},
		routes: map[string]int{},
	}
	s.HTTP = httptest.NewUnstartedServer(s)
	if opts.TLS {
		s.HTTP.StartTLS()
	} else {
		s.HTTP.Start()
	}
	t.Cleanup(s.HTTP.Close)
	s.URL = s.HTTP.URL
	return s
}

// Requests returns how many requests came.
func (s *Server) Requests() int64 { return s.requests.Load() }

// Count returns how many requests came for a route, such as "files/upload".
func (s *Server) Count(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routes[route]
}

// SetHook lets hook see every request first; nil ends that.
func (s *Server) SetHook(hook Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Refuse answers with a status and a body, as a Hook may.
func Refuse(w http.ResponseWriter, status int, body string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body) //nolint:errcheck // whoever asked may be gone
	return true
}

// A failure ends a request.
type failure struct {
	status int
	body   string
}

// refuse ends a request with a tagged union, written as "path/not_found".
func refuse(tags string) *failure {
	union := ""
	parts := strings.Split(tags, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		inner := ""
		if union != "" {
			inner = fmt.Sprintf(", %q: %s", parts[i], union)
		}
		union = fmt.Sprintf(`{".tag": %q%s}`, parts[i], inner)
	}
	return &failure{http.StatusConflict, fmt.Sprintf(`{"error_summary": "%s/..", "error": %s}`, tags, union)}
}

// bad ends a request that no client should send.
func bad(why string, args ...any) *failure {
	return &failure{http.StatusBadRequest, fmt.Sprintf(why, args...)}
}

// A call is one request.
type call struct {
	*Server
	w    http.ResponseWriter
	r    *http.Request
	arg  []byte
	body io.Reader
}

// A route is how a function of the API is asked, and by what it is answered.
type route struct {
	style string // "rpc", "upload" or "download"
	do    func(c *call) (any, *failure)
}

func (s *Server) route(name string) (route, bool) {
	rpc := map[string]func(*call) (any, *failure){
		"files/list_folder":                        (*call).listFolder,
		"files/list_folder/continue":               (*call).listContinue,
		"files/list_folder/get_latest_cursor":      (*call).latestCursor,
		"files/list_folder/longpoll":               (*call).longpoll,
		"files/get_metadata":                       (*call).getMetadata,
		"files/delete_v2":                          (*call).delete,
		"files/copy_v2":                            (*call).copy,
		"files/create_folder_v2":                   (*call).createFolder,
		"files/restore":                            (*call).restore,
		"files/search_v2":                          (*call).search,
		"files/search/continue_v2":                 (*call).searchContinue,
		"sharing/create_shared_link_with_settings": (*call).createLink,
		"sharing/list_shared_links":                (*call).listLinks,
		"users/get_current_account":                (*call).account,
	}
	upload := map[string]func(*call) (any, *failure){
		"files/upload":                   (*call).upload,
		"files/upload_session/start":     (*call).sessionStart,
		"files/upload_session/append_v2": (*call).sessionAppend,
		"files/upload_session/finish":    (*call).sessionFinish,
	}
	if do, ok := rpc[name]; ok {
		return route{"rpc", do}, true
	}
	if do, ok := upload[name]; ok {
		return route{"upload", do}, true
	}
	return route{"download", (*call).download}, name == "files/download"
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	name := strings.TrimPrefix(r.URL.Path, "/2/")
	s.mu.Lock()
	s.routes[name]++
	hook := s.hook
	s.mu.Unlock()
	if hook != nil && hook(name, w, r) {
		return
	}
	if name == "/oauth2/token" {
		s.token(w, r)
		return
	}
	c := &call{Server: s, w: w, r: r, body: r.Body}
	answer, fail := c.serve(name)
	if fail != nil {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // so that the connection lives on
		if fail.status == http.StatusBadRequest {
			s.t.Errorf("dropboxtest: %s: %s", name, fail.body)
		}
		Refuse(w, fail.status, fail.body)
		return
	}
	if answer != nil {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer) //nolint:errcheck,errchkjson // whoever asked may be gone
	}
}

func (c *call) serve(name string) (any, *failure) {
	route, ok := c.route(name)
	if !ok || c.r.Method != http.MethodPost {
		return nil, bad("no such route: %s %s", c.r.Method, c.r.URL.Path)
	}
	if fail := c.authorize(name); fail != nil {
		return nil, fail
	}
	if fail := c.readArg(route.style); fail != nil {
		return nil, fail
	}
	return route.do(c)
}

func (c *call) authorize(name string) *failure {
	got := c.r.Header.Get("Authorization")
	if name == "files/list_folder/longpoll" {
		if got != "" {
			return bad("a login sent where none may be")
		}
		return nil
	}
	token, ok := strings.CutPrefix(got, "Bearer ")
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || !c.tokens[token] {
		tag := "invalid_access_token"
		if _, known := c.tokens[token]; known {
			tag = "expired_access_token"
		}
		return &failure{http.StatusUnauthorized, fmt.Sprintf(`{"error_summary": "%s/..", "error": {".tag": %q}}`, tag, tag)}
	}
	return nil
}

// readArg reads the argument, which is in the body or a header.
func (c *call) readArg(style string) *failure {
	contentType, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	header, hasHeader := c.r.Header["Dropbox-Api-Arg"]
	if style == "rpc" {
		if contentType != "application/json" || hasHeader {
			return bad("Content-Type %q, argument in a header: %v", contentType, hasHeader)
		}
		var err error
		if c.arg, err = io.ReadAll(io.LimitReader(c.r.Body, 1<<20)); err != nil {
			return bad("%v", err)
		}
		return nil
	}
	if contentType != "application/octet-stream" && (style != "download" || contentType != "" && contentType != "text/plain") {
		return bad("Content-Type %q", contentType)
	}
	if len(header) != 1 {
		return bad("%d headers Dropbox-API-Arg", len(header))
	}
	for _, b := range []byte(header[0]) {
		if b < 0x20 || b >= 0x7f {
			return bad("Dropbox-API-Arg is not ASCII: %q", header[0])
		}
	}
	c.arg = []byte(header[0])
	return nil
}

// decode reads the argument into dst and refuses fields that dst lacks.
func (c *call) decode(dst any) *failure {
	d := json.NewDecoder(bytes.NewReader(c.arg))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return bad("argument %s: %v", c.arg, err)
	}
	return nil
}

// next returns a number that was not returned before. s.mu is held.
func (s *Server) next() int {
	s.counter++
	return s.counter
}

const timeFormat = "2006-01-02T15:04:05Z"

func (c *call) account() (any, *failure) {
	if arg := strings.TrimSpace(string(c.arg)); arg != "null" {
		return nil, bad("an argument: %q", arg)
	}
	return map[string]any{
		"account_id": "dbid:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "email": "me@example.org", "email_verified": true, "disabled": false,
		"name":   map[string]any{"given_name": "A", "surname": "B", "familiar_name": "A", "display_name": "A B", "abbreviated_name": "AB"},
		"locale": "en", "referral_link": "https://db.tt/x", "is_paired": false, "account_type": map[string]any{".tag": "basic"},
		"root_info": map[string]any{".tag": "user", "root_namespace_id": "3", "home_namespace_id": "3"},
	}, nil
}
