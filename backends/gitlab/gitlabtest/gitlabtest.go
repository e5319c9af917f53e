// SPDX-License-Identifier: Apache-2.0

// Package gitlabtest is a GitLab as far as generic packages go: the Packages API and the generic
// package registry of docs.gitlab.com (api/packages, user/packages/generic_packages), for one
// private project; and the APIs of jobs and of their files (api/jobs, api/job_artifacts), to read.
// It knows no groups, no other types of packages, and no rights.
//
// It is held against python-gitlab by the tests of package gitlab. Begin at [Start].
package gitlabtest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// What the server knows.
const (
	Project = "lab/images"
	Token   = "glpat-first"
)

// Options say how a server behaves. The zero value sends files by itself, and takes several of one
// name.
type Options struct {
	Redirect     bool // files are in an object storage, to which a download is sent on
	NoDuplicates bool // a second file of one name is refused
}

// A Server is a GitLab that runs.
type Server struct {
	URL string // "http://127.0.0.1:PORT", without a slash

	opts    Options
	bodies  *bodytest.Store
	storage string // address of the object storage

	mu       sync.Mutex // guards the fields below
	tokens   []string
	packages []*pack
	jobs     []*job
	next     int64 // the next number
	leaked   []string
	asked    int
}

type pack struct {
	id            int64
	name, version string
	created       time.Time
	files         []*file
}

type file struct {
	id      int64
	name    string
	body    bodytest.Body
	size    int64
	sha256  string
	md5     string
	created time.Time
}

// Start runs a server until the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{opts: opts, bodies: bodytest.Open(t), tokens: []string{Token}, next: 1}
	storage := httptest.NewServer(http.HandlerFunc(s.serveStorage))
	t.Cleanup(storage.Close)
	s.storage = storage.URL
	mux := http.NewServeMux()
	const project = "/api/v4/projects/{project}"
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request){
		"GET " + project + "/packages":                                 s.list,
		"GET " + project + "/packages/{id}":                            s.one,
		"DELETE " + project + "/packages/{id}":                         s.remove,
		"GET " + project + "/packages/{id}/package_files":              s.files,
		"DELETE " + project + "/packages/{id}/package_files/{file}":    s.removeFile,
		"PUT " + project + "/packages/generic/{name}/{version}/{file}": s.upload,
		"GET " + project + "/packages/generic/{name}/{version}/{file}": s.download,
		"GET " + project + "/jobs":                                     s.listJobs,
		"GET " + project + "/jobs/{job}":                               s.oneJob,
		"GET " + project + "/jobs/{job}/artifacts/{path...}":           s.artifact,
		"GET /api/v4/user":                                             func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]any{"id": 1, "username": "me"}) },
		"GET " + project: func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, map[string]any{"id": 7, "path_with_namespace": Project})
		},
	} {
		mux.HandleFunc(pattern, s.loggedIn(handle))
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Accept takes these tokens, and no others.
func (s *Server) Accept(tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = tokens
}

// Leaked returns the tokens that came to the object storage.
func (s *Server) Leaked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.leaked)
}

// Asked returns how many requests there were since it was asked last.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

// Put publishes a file, as an upload at that time would have.
func (s *Server) Put(name, version, fileName string, content []byte, at time.Time) {
	s.add(name, version, fileName, s.bodies.Put(content), int64(len(content)), fmt.Sprintf("%x", sha256.Sum256(content)), fmt.Sprintf("%x", md5.Sum(content)), at)
}

// Files returns "package/version/file" of all files.
func (s *Server) Files() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packages {
		for _, f := range p.files {
			all = append(all, p.name+"/"+p.version+"/"+f.name)
		}
		if len(p.files) == 0 {
			all = append(all, p.name+"/"+p.version+"/")
		}
	}
	return all
}

func (s *Server) add(name, version, fileName string, body bodytest.Body, size int64, sha, md string, at time.Time) (*pack, *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.packages, func(p *pack) bool { return p.name == name && p.version == version })
	if i < 0 {
		i = len(s.packages)
		s.packages = append(s.packages, &pack{id: s.number(), name: name, version: version, created: at})
	}
	p := s.packages[i]
	f := &file{id: s.number(), name: fileName, body: body, size: size, sha256: sha, md5: md, created: at}
	p.files = append(p.files, f)
	return p, f
}

func (s *Server) number() int64 { s.next++; return s.next }

// loggedIn lets requests with a token through, about the one project.
func (s *Server) loggedIn(next func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.asked++
		token := req.Header.Get("Private-Token") + req.Header.Get("Job-Token")
		if bearer, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
			token += bearer
		}
		known := slices.Contains(s.tokens, token)
		s.mu.Unlock()
		project := req.PathValue("project")
		switch {
		case !known && token != "":
			reply(w, http.StatusUnauthorized, map[string]string{"message": "401 Unauthorized"})
		case !known && project == "":
			reply(w, http.StatusUnauthorized, map[string]string{"message": "401 Unauthorized"})
		case project != "" && project != Project && project != "7" || !known:
			reply(w, http.StatusNotFound, map[string]string{"message": "404 Project Not Found"})
		default:
			next(w, req)
		}
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func notFound(w http.ResponseWriter, what string) {
	reply(w, http.StatusNotFound, map[string]string{"message": "404 " + what + "Not Found"})
}

// page answers with a part of a listing, and says in headers what comes after it.
func page(w http.ResponseWriter, req *http.Request, all []any) {
	number := func(key string, usual int) int {
		if n, err := strconv.Atoi(req.FormValue(key)); err == nil && n > 0 {
			return n
		}
		return usual
	}
	size, at := min(number("per_page", 20), 100), number("page", 1)
	first := min((at-1)*size, len(all))
	last := min(first+size, len(all))
	next := ""
	if last < len(all) {
		next = strconv.Itoa(at + 1)
	}
	h := w.Header()
	h.Set("X-Page", strconv.Itoa(at))
	h.Set("X-Per-Page", strconv.Itoa(size))
	h.Set("X-Total", strconv.Itoa(len(all)))
	h.Set("X-Total-Pages", strconv.Itoa((len(all)+size-1)/size))
	h.Set("X-Next-Page", next)
	if next != "" {
		u := *req.URL
		query := u.Query()
		query.Set("page", next)
		u.RawQuery = query.Encode()
		h.Set("Link", fmt.Sprintf(`<http://%s%s>; rel="next"`, req.Host, u.RequestURI()))
	}
	reply(w, http.StatusOK, append([]any{}, all[first:last]...))
}

func (p *pack) json() any {
	return map[string]any{
		"id": p.id, "name": p.name, "version": p.version, "package_type": "generic", "status": "default", "created_at": p.created, "tags": []string{},
		"_links": map[string]string{"web_path": "/" + Project + "/-/packages/" + fmt.Sprint(p.id)},
	}
}

func (f *file) json(p *pack) any {
	return map[string]any{
		"id": f.id, "package_id": p.id, "created_at": f.created, "file_name": f.name, "size": f.size, "file_md5": f.md5, "file_sha1": nil, "file_sha256": f.sha256,
	}
}

func (s *Server) list(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sorted := slices.Clone(s.packages)
	if req.FormValue("order_by") == "name" {
		slices.SortStableFunc(sorted, func(a, b *pack) int { return strings.Compare(a.name, b.name) })
	}
	var all []any
	for _, p := range sorted {
		fuzzy := strings.Contains(strings.ToLower(p.name), strings.ToLower(req.FormValue("package_name")))
		if version := req.FormValue("package_version"); fuzzy && (version == "" || version == p.version) {
			all = append(all, p.json())
		}
	}
	page(w, req, all)
}

// find returns the package of a request; s.mu is held.
func (s *Server) find(req *http.Request) *pack {
	for _, p := range s.packages {
		if fmt.Sprint(p.id) == req.PathValue("id") {
			return p
		}
	}
	return nil
}

func (s *Server) one(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(req); p != nil {
		reply(w, http.StatusOK, p.json())
		return
	}
	notFound(w, "Package ")
}

func (s *Server) files(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(req)
	if p == nil {
		notFound(w, "")
		return
	}
	var all []any
	for _, f := range p.files {
		all = append(all, f.json(p))
	}
	page(w, req, all)
}

func (s *Server) remove(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(req)
	if p == nil {
		notFound(w, "Package ")
		return
	}
	s.packages = slices.DeleteFunc(s.packages, func(other *pack) bool { return other == p })
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) removeFile(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(req); p != nil {
		n := len(p.files)
		p.files = slices.DeleteFunc(p.files, func(f *file) bool { return fmt.Sprint(f.id) == req.PathValue("file") })
		if len(p.files) < n {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	notFound(w, "")
}

// What GitLab takes (lib/gitlab/regex/packages.rb says the same in Ruby).
var (
	nameRule    = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)
	versionRule = regexp.MustCompile(`^(\.?[\w+-]+\.?)+$`)
	fileRule    = regexp.MustCompile(`^[A-Za-z0-9._+~@-]+$`)
)

func (s *Server) upload(w http.ResponseWriter, req *http.Request) {
	name, version, fileName := req.PathValue("name"), req.PathValue("version"), req.PathValue("file")
	for what, ok := range map[string]bool{
		"package_name": nameRule.MatchString(name) && len(name) <= 255, "package_version": versionRule.MatchString(version) && len(version) <= 255,
		"file_name": fileRule.MatchString(fileName),
	} {
		if !ok {
			reply(w, http.StatusBadRequest, map[string]string{"error": what + " is invalid"})
			return
		}
	}
	sha, md := sha256.New(), md5.New()
	var size counter
	body, err := s.bodies.Take(io.TeeReader(req.Body, io.MultiWriter(sha, md, &size)))
	if err != nil || req.ContentLength >= 0 && int64(size) != req.ContentLength {
		return // it was broken off
	}
	if s.opts.NoDuplicates && slices.Contains(s.Files(), name+"/"+version+"/"+fileName) {
		reply(w, http.StatusForbidden, map[string]string{"message": "403 Forbidden - Duplicate package is not allowed"})
		return
	}
	p, f := s.add(name, version, fileName, body, int64(size), fmt.Sprintf("%x", sha.Sum(nil)), fmt.Sprintf("%x", md.Sum(nil)), time.Now().UTC())
	if req.FormValue("select") == "package_file" {
		reply(w, http.StatusCreated, f.json(p))
		return
	}
	reply(w, http.StatusCreated, map[string]string{"message": "201 Created"})
}

type counter int64

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// newest returns the last file of a name.
func (s *Server) newest(name, version, fileName string) *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packages {
		if p.name != name || p.version != version {
			continue
		}
		for _, f := range slices.Backward(p.files) {
			if f.name == fileName {
				return f
			}
		}
	}
	return nil
}

func (s *Server) download(w http.ResponseWriter, req *http.Request) {
	f := s.newest(req.PathValue("name"), req.PathValue("version"), req.PathValue("file"))
	switch {
	case f == nil:
		notFound(w, "Package ")
	case s.opts.Redirect:
		http.Redirect(w, req, s.storage+"/"+fmt.Sprint(f.id)+"?"+url.Values{"signature": {"s"}}.Encode(), http.StatusFound)
	default:
		s.send(w, req, f)
	}
}

func (s *Server) send(w http.ResponseWriter, req *http.Request, f *file) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, req, "", f.created, io.NewSectionReader(f.body, 0, f.size))
}

// serveStorage is the object storage: what is signed is for everybody, and a token is refused.
func (s *Server) serveStorage(w http.ResponseWriter, req *http.Request) {
	for name, values := range req.Header {
		if strings.Contains(name, "Token") || name == "Authorization" {
			s.mu.Lock()
			s.leaked = append(s.leaked, values...)
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	var found *file
	for _, p := range s.packages {
		for _, f := range p.files {
			if "/"+fmt.Sprint(f.id) == req.URL.Path && req.FormValue("signature") == "s" {
				found = f
			}
		}
	}
	s.mu.Unlock()
	if found == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.send(w, req, found)
}
