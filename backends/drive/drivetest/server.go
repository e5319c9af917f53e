// SPDX-License-Identifier: Apache-2.0

// Package drivetest is a Google Drive for tests: as much of its API as images need. Every
// request is compared with the description of the API that Google publishes
// (testdata/README.md); what that does not say is written after Google's guides, and after
// what rclone, which has met the real one, takes care of.
//
// It is strict: what Drive would refuse, or what only happens to work there, is an error of
// the test. Names are found in any case, no list has an order, and what is asked for by fields
// is all that comes. It is no emulator: one account, no comments, no permissions. Start at
// [Start].
package drivetest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// Token is an access token that a server takes until Expire.
const Token = "ya29.first"

// Options change what a server does. The zero value is Drive.
type Options struct {
	PageSize    int    // the most files of one page; default 1000
	SharedDrive string // the id of a shared drive that there is
	// StoresAtMost is how many bytes of one piece of an upload are stored; the default is all.
	StoresAtMost int64
	// NoRevisions says that the login may read files, and not their revisions.
	NoRevisions bool
}

// A Server is one account. All methods may be called from many goroutines.
type Server struct {
	URL  string
	HTTP *httptest.Server

	opts    Options
	t       testing.TB
	bodies  *bodytest.Store
	api     *api
	methods []method

	mu       sync.Mutex // guards the fields below
	nodes    map[string]*node
	root     string
	log      []string // ids, in the order in which they changed
	pages    map[string]listed
	sessions map[string]*session
	tokens   map[string]bool
	counts   map[string]int
	shares   []string
	hook     Hook
	last     time.Time
}

// A Hook may answer a request for a method, such as "drive.files.list", in the place of the
// server, and then returns true. "upload" is a piece of an upload.
type Hook func(method string, w http.ResponseWriter, r *http.Request) bool

// Start starts a server on 127.0.0.1, which ends with t.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.PageSize == 0 {
		opts.PageSize = 1000
	}
	s := &Server{
		opts: opts, t: t, bodies: bodytest.Open(t), api: load(), nodes: map[string]*node{}, pages: map[string]listed{},
		sessions: map[string]*session{}, tokens: map[string]bool{Token: true}, counts: map[string]int{},
	}
	s.methods = s.api.methods()
	s.root = s.make(&node{name: "My Drive", kind: folderType}).id
	if opts.SharedDrive != "" {
		n := &node{id: opts.SharedDrive, name: "Drive", kind: folderType, drive: opts.SharedDrive}
		s.make(n)
	}
	s.HTTP = httptest.NewServer(s)
	t.Cleanup(s.HTTP.Close)
	s.URL = s.HTTP.URL
	return s
}

// Count returns how many requests came for a method.
func (s *Server) Count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[method]
}

// Requests returns how many came in all.
func (s *Server) Requests() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.counts {
		n += count
	}
	return n
}

// SetHook lets hook see every request first; nil ends that.
func (s *Server) SetHook(hook Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Accept takes token as a login, too.
func (s *Server) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = true
}

// Expire refuses all logins that there were.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Shares returns who was given access: "user me@example.org", "anyone".
func (s *Server) Shares() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.shares)
}

// A failure ends a request.
type failure struct {
	status int
	reason string
	text   string
}

func (f *failure) Error() string { return fmt.Sprintf("%d %s: %s", f.status, f.reason, f.text) }

// Refuse answers as Drive refuses, for a Hook.
func Refuse(w http.ResponseWriter, status int, reason, message string) bool {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	text, _ := json.Marshal(map[string]any{"error": map[string]any{
		"code": status, "message": message, "errors": []any{map[string]any{"domain": "global", "reason": reason, "message": message}},
	}})
	_, _ = w.Write(text) // whoever asked may be gone
	return true
}

func missing(id string) *failure { return &failure{404, "notFound", "File not found: " + id + "."} }

// bad ends a request that no client should send, and fails the test.
func (s *Server) bad(format string, args ...any) *failure {
	s.t.Errorf("drivetest: "+format, args...)
	return &failure{400, "invalid", fmt.Sprintf(format, args...)}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, vars, ok := s.find(r.Method, r.URL.Path)
	name := m.ID
	if r.URL.Query().Has("upload_id") {
		name, ok = "upload", true
	}
	if !s.admit(name, w, r) {
		return
	}
	if !ok {
		s.answer(w, nil, s.bad("%s %s is in no description of the API", r.Method, r.URL.Path))
		return
	}
	if name == "upload" {
		s.piece(w, r)
		return
	}
	if err := s.api.checkQuery(m, r.URL.Query()); err != nil {
		s.answer(w, nil, s.bad("%v", err))
		return
	}
	c := &call{Server: s, m: m, vars: vars, w: w, r: r}
	if f := c.readBody(); f != nil {
		s.answer(w, nil, f)
		return
	}
	s.mu.Lock()
	out, f := c.run()
	s.mu.Unlock()
	if f == nil && out != nil {
		out, f = c.chosen(out)
	}
	if m.upload && f == nil {
		return // the session is in a header
	}
	if c.media != nil && f == nil {
		w.Header().Set("Content-Type", c.media.kind)
		http.ServeContent(w, r, "", time.Time{}, c.media.body.Reader())
		return
	}
	s.answer(w, out, f)
}

// admit counts a request, and reports whether it is to be answered: the hook may have done
// so, or the login is refused.
func (s *Server) admit(name string, w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.counts[name]++
	hook := s.hook
	login := r.Header.Get("Authorization")
	allowed := s.tokens[strings.TrimPrefix(login, "Bearer ")]
	s.mu.Unlock()
	switch {
	case hook != nil && hook(name, w, r):
	case login == "":
		Refuse(w, 403, "forbidden", "Method doesn't allow unregistered callers (callers without established identity).")
	case !allowed:
		Refuse(w, 401, "authError", "Invalid Credentials")
	default:
		return true
	}
	return false
}

func (s *Server) answer(w http.ResponseWriter, out any, f *failure) {
	if f != nil {
		Refuse(w, f.status, f.reason, f.text)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if out == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	json.NewEncoder(w).Encode(out) //nolint:errcheck // whoever asked may be gone
}

// A call is one request.
type call struct {
	*Server
	m     method
	vars  map[string]string
	w     http.ResponseWriter
	r     *http.Request
	body  map[string]any
	media *content
}

// A content is bytes to be sent.
type content struct {
	kind string
	body bodytest.Body
}

func (c *call) readBody() *failure {
	text, err := io.ReadAll(io.LimitReader(c.r.Body, 1<<20))
	if err != nil {
		return &failure{400, "badRequest", err.Error()}
	}
	if len(text) == 0 {
		return nil
	}
	if c.m.Request == nil {
		return c.bad("%s has no body", c.m.ID)
	}
	if err := json.Unmarshal(text, &c.body); err != nil {
		return c.bad("%s: %v", c.m.ID, err)
	}
	if err := c.api.check(*c.m.Request, c.body, c.m.ID); err != nil {
		return c.bad("%v", err)
	}
	return nil
}

// chosen is what of an answer was asked for.
func (c *call) chosen(out any) (any, *failure) {
	fields := c.r.URL.Query().Get("fields")
	if fields == "" {
		fields = map[string]string{
			"drive.files.list": "kind,nextPageToken,incompleteSearch,files(kind,id,name,mimeType)", "drive.changes.list": "kind,nextPageToken,newStartPageToken",
			"drive.changes.getStartPageToken": "kind,startPageToken", "drive.permissions.create": "kind,id,type,role",
		}[c.m.ID]
	}
	if fields == "" {
		fields = "kind,id,name,mimeType"
	}
	// The answer as JSON has it, so that nothing else than fields of the description is in it.
	text, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		panic(err)
	}
	if err := c.api.check(*c.m.Response, plain, c.m.ID+"'s answer"); err != nil {
		return nil, c.bad("%v", err) // a fault of this package
	}
	chosen, err := c.api.choose(*c.m.Response, plain, fields)
	if err != nil {
		return nil, c.bad("%s: fields=%s: %v", c.m.ID, fields, err)
	}
	return chosen, nil
}

func (c *call) param(name string) string { return c.r.URL.Query().Get(name) }

// run does it.
func (c *call) run() (any, *failure) {
	switch c.m.ID {
	case "drive.about.get":
		if c.param("fields") == "" {
			return nil, c.bad("about.get needs fields")
		}
		return map[string]any{"kind": "drive#about", "user": map[string]any{"kind": "drive#user", "displayName": "Me"}}, nil
	case "drive.files.list":
		return c.list()
	case "drive.files.create":
		if c.m.upload {
			return nil, c.begin()
		}
		return c.create()
	case "drive.changes.getStartPageToken":
		return map[string]any{"kind": "drive#startPageToken", "startPageToken": strconv.Itoa(len(c.log))}, nil
	case "drive.changes.list":
		return c.changes()
	}
	n := c.nodes[c.alias(c.vars["fileId"])]
	if n == nil || n.drive != "" && c.param("supportsAllDrives") != "true" && c.m.ID != "drive.revisions.get" {
		return nil, missing(c.vars["fileId"])
	}
	switch c.m.ID {
	case "drive.files.get":
		if c.param("alt") == "media" {
			return nil, c.download(n, n.head())
		}
		return c.resource(n), nil
	case "drive.revisions.get":
		return nil, c.revision(n)
	case "drive.files.update":
		return c.update(n)
	case "drive.files.copy":
		return c.copy(n)
	case "drive.files.delete":
		c.remove(n)
		return nil, nil
	case "drive.permissions.create":
		return c.share(n)
	}
	return nil, c.bad("%s is not there", c.m.ID)
}

func (c *call) revision(n *node) *failure {
	if c.opts.NoRevisions {
		return &failure{403, "insufficientFilePermissions", "The user does not have sufficient permissions for this file."}
	}
	i := slices.IndexFunc(n.revisions, func(r revision) bool { return r.id == c.vars["revisionId"] })
	if i < 0 {
		return &failure{404, "notFound", "Revision not found: " + c.vars["revisionId"] + "."}
	}
	if c.param("alt") != "media" {
		return c.bad("revisions.get without alt=media")
	}
	return c.download(n, n.revisions[i])
}

func (c *call) download(n *node, r revision) *failure {
	switch {
	case strings.HasPrefix(n.kind, ownTypes):
		return &failure{403, "fileNotDownloadable", "Only files with binary content can be downloaded. Use Export with Docs Editors files."}
	case n.abusive && c.param("acknowledgeAbuse") != "true":
		return &failure{403, "cannotDownloadAbusiveFile", "This file has been identified as malware or spam and cannot be downloaded."}
	}
	c.media = &content{n.kind, r.body}
	return nil
}

func (c *call) share(n *node) (any, *failure) {
	kind, role, email := c.body["type"], c.body["role"], c.body["emailAddress"]
	if kind != "user" && kind != "anyone" || role != "reader" || (kind == "user") != (email != nil) {
		return nil, c.bad("permissions.create of %v", c.body)
	}
	who := fmt.Sprint(kind)
	if email != nil {
		who += " " + fmt.Sprint(email)
	}
	c.shares = append(c.shares, who)
	c.touch(n)
	return map[string]any{"kind": "drive#permission", "id": rand.Text(), "type": kind, "role": role}, nil
}

func (c *call) changes() (any, *failure) {
	from, err := strconv.Atoi(c.param("pageToken"))
	if err != nil || from < 0 || from > len(c.log) {
		return nil, &failure{400, "invalid", "Invalid Value"}
	}
	end := min(len(c.log), from+c.opts.PageSize)
	all := []map[string]any{}
	for i, id := range c.log[from:end] {
		if slices.Contains(c.log[from+i+1:], id) {
			continue
		}
		change := map[string]any{"kind": "drive#change", "fileId": id, "removed": c.nodes[id] == nil, "changeType": "file"}
		if n := c.nodes[id]; n != nil {
			change["file"] = c.resource(n)
		}
		all = append(all, change)
	}
	out := map[string]any{"kind": "drive#changeList", "changes": all}
	if end < len(c.log) {
		out["nextPageToken"] = strconv.Itoa(end)
	} else {
		out["newStartPageToken"] = strconv.Itoa(end)
	}
	return out, nil
}

// A listed is the rest of a listing.
type listed struct {
	query string
	ids   []string
}

func (c *call) list() (any, *failure) {
	q := c.param("q")
	is, folders, err := c.parse(q)
	if err != nil {
		return nil, c.bad("q=%s: %v", q, err)
	}
	for _, id := range folders {
		if c.nodes[id] == nil {
			return nil, missing("")
		}
	}
	drive := c.param("driveId")
	if (c.param("corpora") == "drive") != (drive != "") || drive != "" && (c.param("supportsAllDrives") != "true" || c.param("includeItemsFromAllDrives") != "true") {
		return nil, c.bad("files.list of %s in corpora %s", drive, c.param("corpora"))
	}
	var ids []string
	if token := c.param("pageToken"); token != "" {
		page, ok := c.pages[token]
		if !ok || page.query != q {
			return nil, &failure{400, "invalid", "Invalid Value"}
		}
		ids = page.ids
	} else {
		ids = slices.Sorted(maps.Keys(c.nodes))
	}
	size := 100
	if n, err := strconv.Atoi(c.param("pageSize")); err == nil {
		size = n
	}
	size = min(size, c.opts.PageSize)
	out := map[string]any{"kind": "drive#fileList", "incompleteSearch": false}
	found := []map[string]any{}
	for i, id := range ids {
		n := c.nodes[id]
		if n == nil || n.drive != drive || n.parent == "" || !is(n) {
			continue
		}
		if len(found) == size {
			token := "~!!~" + rand.Text()
			c.pages[token] = listed{q, ids[i:]}
			out["nextPageToken"] = token
			break
		}
		found = append(found, c.resource(n))
	}
	out["files"] = found
	return out, nil
}
