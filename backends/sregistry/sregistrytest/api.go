// SPDX-License-Identifier: Apache-2.0

package sregistrytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

type dict = map[string]any

// A route is one view of the server. Its name is what quotas are counted by.
type route struct {
	method string
	path   *regexp.Regexp
	name   string
	serve  func(s *Server, w http.ResponseWriter, r *http.Request, m []string)
}

func routes() []route {
	at := func(method, path, name string, serve func(*Server, http.ResponseWriter, *http.Request, []string)) route {
		return route{method, regexp.MustCompile("^" + path + "/?$"), name, serve}
	}
	return []route{
		at("GET", "/api/collections", "collections", (*Server).listCollections),
		at("GET", "/api/collection/(.+?)", "collection", (*Server).getCollection),
		at("GET", "/api/container/search/collection/(.+?)/name/(.+?)/tag/(.+?)", "search", (*Server).search),
		at("GET", "/api/container/search/collection/(.+?)/name/(.+?)", "search", (*Server).search),
		at("GET", "/api/container/search/name/(.+?)", "search", (*Server).searchName),
		at("GET", "/api/labels/search(?:/(.+?)/key)?(?:/(.+?)/value)?", "labels", (*Server).labelSearch),
		at("GET", "/api/container/([^/]+?)/(.+?)(?::([^:@]+?))?(?:@.+)?", "manifest", (*Server).manifest),
		at("DELETE", "/api/container/([^/]+?)/(.+?):([^:@]+?)", "delete", (*Server).remove),
		at("POST", "/api/upload/chunked_upload", "upload", (*Server).openUpload),
		at("POST", "/upload", "upload", (*Server).upload),
		at("GET", "/containers/([0-9]+)/download/(.+?)", "download", (*Server).download),
		at("GET", "/v1/token-status", "library", (*Server).tokenStatus),
		at("GET", "/v1/entities/([^/]+)", "library", (*Server).entity),
		at("GET", "/v1/collections/([^/]+)/([^/]+)", "library", (*Server).libraryCollection),
		at("POST", "/v1/collections", "library", (*Server).makeCollection),
		at("GET", "/v1/images/([^/]+)/([^/]+)/([^/]+):(.+)", "library", (*Server).nameless),
		at("GET", "/v1/imagefile/([^/]+)/(.+):([^:]+)", "library", (*Server).imageFile),
		at("POST", "/v2/imagefile/([0-9]+)/_multipart", "library", (*Server).openParts),
		at("PUT", "/v2/imagefile/([0-9]+)/_multipart", "library", (*Server).signPart),
		at("PUT", "/v2/imagefile/([0-9]+)/_multipart_complete", "library", (*Server).completeParts),
		at("POST", "/v2/imagefile/([0-9]+)", "library", (*Server).signUpload),
		at("PUT", "/v2/imagefile/([0-9]+)/_complete", "library", (*Server).complete),
		at("POST", "/v1/tags/([0-9]+)", "library", (*Server).setTag),
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	if s.opts.NoLibrary && (strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/v2/")) {
		notFound(w)
		return
	}
	for _, at := range s.routes {
		m := at.path.FindStringSubmatch(r.URL.Path)
		if m == nil || at.method != r.Method {
			continue
		}
		s.mu.Lock()
		s.views[at.name]++
		over := s.opts.ViewLimit > 0 && s.views[at.name] > s.opts.ViewLimit
		s.mu.Unlock()
		if over {
			http.Error(w, "<h1>403 Forbidden</h1>", http.StatusForbidden)
			return
		}
		at.serve(s, w, r, m)
		return
	}
	notFound(w)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func notFound(w http.ResponseWriter) { reply(w, http.StatusNotFound, dict{"detail": "Not found."}) }

// broken is what Django answers when a view raises.
func broken(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprint(w, "<h1>Server Error (500)</h1>")
}

var authorization = regexp.MustCompile(`^SREGISTRY-HMAC-SHA256 Credential=([^,]*),Signature=([0-9a-f]{64})$`)

// signedBy checks a signature as the server does. ok is false for any fault.
func (s *Server) signedBy(header, kind, in, name, tag string) bool {
	m := authorization.FindStringSubmatch(header)
	if m == nil {
		return false
	}
	credential := strings.Split(m[1], "/")
	if len(credential) != 3 || credential[0] != kind || credential[2] != s.now().UTC().Format("20060102T15")+"Z" {
		return false
	}
	user, err := base64.StdEncoding.DecodeString(credential[1])
	if err != nil || string(user) != User {
		return false
	}
	got, _ := hex.DecodeString(m[2])
	for _, token := range []string{Token, s.opts.Trust} {
		mac := hmac.New(sha256.New, []byte(token))
		_, _ = io.WriteString(mac, strings.Join([]string{kind, normalize(in), credential[2], name, tag, ""}, "|"))
		if token != "" && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func (s *Server) described(c *container) dict {
	d := dict{"name": c.name, "tag": c.tag, "uri": c.in.name + "/" + c.name + ":" + c.tag, "detail": s.URL + "/containers/" + strconv.Itoa(c.id)}
	return d
}

func (s *Server) describedCollection(col *collection) dict {
	containers := []dict{}
	for _, c := range s.containers {
		if c.in == col {
			containers = append(containers, s.described(c))
		}
	}
	return dict{"id": col.id, "name": col.name, "add_date": "2019-07-12T14:00:00Z", "metadata": dict{}, "containers": containers}
}

func (s *Server) listCollections(w http.ResponseWriter, r *http.Request, _ []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit <= 0 {
		limit = 10
	}
	if s.opts.MaxPage > 0 {
		limit = min(limit, s.opts.MaxPage)
	}
	offset, _ := strconv.Atoi(r.FormValue("offset"))
	var public []*collection
	for _, col := range s.collections {
		if !col.private {
			public = append(public, col)
		}
	}
	sort.Slice(public, func(i, j int) bool { return public[i].id < public[j].id })
	end := min(offset+limit, len(public))
	results := []dict{}
	for _, col := range public[min(offset, end):end] {
		results = append(results, s.describedCollection(col))
	}
	page := dict{"count": len(public), "next": nil, "previous": nil, "results": results}
	if end < len(public) {
		// The server knows itself by another name than its clients do.
		page["next"] = fmt.Sprintf("http://registry.internal/api/collections/?limit=%d&offset=%d", limit, end)
	}
	reply(w, http.StatusOK, page)
}

func (s *Server) getCollection(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collections[m[1]]
	switch {
	case col == nil:
		reply(w, http.StatusOK, dict{})
	case col.private:
		broken(w)
	default:
		reply(w, http.StatusOK, s.describedCollection(col))
	}
}

func (s *Server) searched(w http.ResponseWriter, match func(*container) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []dict{}
	for _, c := range s.containers {
		if !c.in.private && match(c) {
			d := s.described(c)
			d["collection"], d["version"], d["id"] = c.in.name, c.version, c.id
			found = append(found, d)
		}
	}
	reply(w, http.StatusOK, found)
}

func (s *Server) search(w http.ResponseWriter, _ *http.Request, m []string) {
	s.searched(w, func(c *container) bool {
		return c.in.name == m[1] && strings.Contains(c.name, m[2]) && (len(m) < 4 || c.tag == m[3])
	})
}

func (s *Server) searchName(w http.ResponseWriter, _ *http.Request, m []string) {
	s.searched(w, func(c *container) bool { return strings.Contains(c.name, m[1]) })
}

func (s *Server) labelSearch(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[[2]string][]string{}
	for _, c := range s.containers {
		for key, value := range c.labels {
			if (m[1] == "" || m[1] == key) && (m[2] == "" || m[2] == value) {
				found[[2]string{key, value}] = append(found[[2]string{key, value}], c.in.name+"/"+c.name+":"+c.tag)
			}
		}
	}
	all := []dict{}
	for label, uris := range found {
		all = append(all, dict{"key": label[0], "value": label[1], "containers": uris})
	}
	reply(w, http.StatusOK, all)
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m[3] == "" {
		m[3] = "latest"
	}
	c := s.find(m[1], m[2], m[3])
	if c == nil {
		notFound(w)
		return
	}
	auth := r.Header.Get("Authorization")
	switch {
	case auth != "" && !s.signedBy(auth, "pull", c.in.name, c.name, c.tag):
		reply(w, http.StatusOK, 400)
		return
	case auth == "" && c.in.private:
		reply(w, http.StatusForbidden, dict{"detail": "You do not have permission to perform this action."})
		return
	case s.opts.WeeklyLimit > 0 && c.downloads >= s.opts.WeeklyLimit:
		reply(w, http.StatusOK, 429)
		return
	}
	version := any(c.version)
	if c.version == "" {
		version = nil
	}
	reply(w, http.StatusOK, dict{
		"id": c.id, "name": c.name, "tag": c.tag, "version": version, "frozen": c.frozen, "collection": c.in.name,
		"image":    fmt.Sprintf("%s/containers/%d/download/%s", s.URL, c.id, c.in.secret),
		"add_date": c.modified.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		"metadata": dict{"labels": c.labels, "size_mb": 1},
	})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(m[1], m[2], m[3])
	switch {
	case c == nil:
		notFound(w)
	case !s.signedBy(r.Header.Get("Authorization"), "delete", m[1], m[2], m[3]):
		reply(w, http.StatusForbidden, dict{"detail": "Invalid signature."})
	case c.frozen:
		w.WriteHeader(http.StatusNotModified)
	default:
		s.containers = slices.DeleteFunc(s.containers, func(o *container) bool { return o == c })
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) openUpload(w http.ResponseWriter, r *http.Request, _ []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked struct{ Collection, Name, Tag string }
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Collection == "" || asked.Name == "" || asked.Tag == "" ||
		!s.signedBy(r.Header.Get("Authorization"), "push", asked.Collection, asked.Name, asked.Tag) {
		broken(w)
		return
	}
	reply(w, http.StatusOK, dict{"cid": s.collection(normalize(asked.Collection)).id})
}

// upload takes the form. nginx hands it to the server when it is whole.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, _ []string) {
	if r.ContentLength < 0 {
		http.Error(w, "Length Required", http.StatusLengthRequired)
		return
	}
	fields, got, err := s.readForm(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var in *collection
	for _, col := range s.collections {
		if strconv.Itoa(col.id) == fields["collection"] {
			in = col
		}
	}
	event := fields["SREGISTRY_EVENT"]
	if in == nil || got == nil || event != r.Header.Get("Authorization") ||
		!s.signedBy(event, "upload", in.name, fields["name"], fields["tag"]) {
		broken(w)
		return
	}
	c := &container{id: s.id(), in: in, name: fields["name"], tag: fields["tag"], object: got, version: got.md5, sum: got.sha, modified: s.now()}
	if old := s.find(in.name, c.name, c.tag); old != nil && old.frozen {
		broken(w)
		return
	}
	s.replace(c)
	reply(w, http.StatusOK, dict{"message": "Upload Complete"})
}

func (s *Server) readForm(r *http.Request) (fields map[string]string, got *object, err error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, nil, err
	}
	fields = map[string]string{}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, got, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if part.FormName() == "file1" {
			if got, err = s.take(part); err != nil {
				return nil, nil, err
			}
			continue
		}
		if fields[part.FormName()], err = field(part); err != nil {
			return nil, nil, err
		}
	}
}

func field(part *multipart.Part) (string, error) {
	text, err := io.ReadAll(io.LimitReader(part, 1<<16))
	return string(text), err
}

// take reads content into an object.
func (s *Server) take(r io.Reader) (*object, error) {
	body, err := s.bodies.Take(r)
	o := newObject(body)
	if s.opts.BadWorker {
		o.md5, o.sha = strings.Repeat("0", 32), strings.Repeat("0", 64)
	}
	return o, err
}

// download gives the whole, whatever part is asked for, and counts it.
func (s *Server) download(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	var c *container
	for _, o := range s.containers {
		if strconv.Itoa(o.id) == m[1] && o.in.secret == m[2] {
			c = o
		}
	}
	if c == nil || c.key != "" {
		s.mu.Unlock()
		notFound(w)
		return
	}
	c.downloads++
	over, content := s.opts.WeeklyLimit > 0 && c.downloads > s.opts.WeeklyLimit, c.object.Reader()
	s.mu.Unlock()
	if over {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(content.Size(), 10))
	_, _ = io.Copy(w, content) // a client that has gone is no matter
}
