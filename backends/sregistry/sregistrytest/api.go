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
	"sort"
	"strconv"
	"strings"
)

type dict = map[string]any

const addDate = "2019-07-12T14:00:00.000000Z"

// A route is one view of the server. Its name is what quotas are counted by: those
// without one have no limit of their own.
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
		at("GET", "/api/collections", "", (*Server).listCollections),
		at("GET", "/api/containers", "", (*Server).listContainers),
		at("GET", "/api/collection/(.+?)", "", (*Server).getCollection),
		at("GET", "/api/container/search/collection/(.+?)/name/(.+?)/tag/(.+?)", "", (*Server).search),
		at("GET", "/api/container/search/collection/(.+?)/name/(.+?)()", "", (*Server).search),
		at("GET", "/api/container/search()/name/(.+?)/tag/(.+?)", "", (*Server).search),
		at("GET", "/api/container/search()/name/(.+?)()", "", (*Server).search),
		at("GET", "/api/labels/search(?:/(.+?)/key)?(?:/(.+?)/value)?", "", (*Server).labelSearch),
		at("GET", "/api/container/([^/]+?)/(.+?)(?::([^:@]+?))?(?:@.+)?", "manifest", (*Server).manifest),
		at("DELETE", "/api/container/([^/]+?)/(.+?):([^:@]+?)", "delete", (*Server).remove),
		at("POST", "/api/upload/chunked_upload", "upload", (*Server).openUpload),
		at("POST", "/upload", "upload complete", (*Server).upload),
		at("GET", "/containers/([0-9]+)/download/(.+?)", "download", (*Server).download),
		at("GET", "/api/registry/identity", "", (*Server).identity),
		at("GET", "/version", "", (*Server).version),
		at("GET", "/v1/token-status", "", (*Server).tokenStatus),
		at("GET", "/v1/entities/([^/]+)", "", (*Server).entity),
		at("GET", "/v1/collections/([^/]+)/([^/]+)", "library collection", (*Server).libraryCollection),
		at("POST", "/v1/collections", "library collections", (*Server).makeCollection),
		at("GET", `/v1/images/([^/]+)/([^/]+)/([^/]+):sha256[.](.+)`, "push image", (*Server).nameless),
		at("GET", "/v1/images/(.+?)", "image", (*Server).image),
		at("GET", "/v1/imagefile/(.+?)", "image file", (*Server).imageFile),
		at("POST", "/v2/imagefile/([0-9]+)/_multipart", "", (*Server).openParts),
		at("PUT", "/v2/imagefile/([0-9]+)/_multipart", "", (*Server).signPart),
		at("PUT", "/v2/imagefile/([0-9]+)/_multipart_complete", "parts complete", (*Server).completeParts),
		at("PUT", "/v2/imagefile/([0-9]+)/_multipart_abort", "abort", (*Server).abortParts),
		at("POST", "/v2/imagefile/([0-9]+)", "sign", (*Server).signUpload),
		at("PUT", "/v2/imagefile/([0-9]+)/_complete", "complete", (*Server).complete),
		at("POST", "/v1/tags/([0-9]+)", "tags", (*Server).setTag),
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	if s.opts.NoLibrary && (strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/v2/") || r.URL.Path == "/version") {
		page(w, http.StatusNotFound)
		return
	}
	for _, at := range s.routes {
		m := at.path.FindStringSubmatch(r.URL.Path)
		if m == nil || at.method != r.Method {
			continue
		}
		user, framework := strings.CutPrefix(r.Header.Get("Authorization"), "Token ")
		framework = framework && !strings.HasPrefix(at.name, "upload") && at.name != "download"
		switch over, throttled := s.limited(at, framework); {
		case framework && user != Token && user != GuestToken:
			reply(w, http.StatusForbidden, dict{"detail": "Invalid token."})
		case throttled:
			w.Header().Set("Retry-After", "86400")
			reply(w, http.StatusTooManyRequests, dict{"detail": "Request was throttled. Expected available in 86400 seconds."})
		case over:
			page(w, http.StatusForbidden)
		default:
			at.serve(s, w, r, m)
		}
		return
	}
	page(w, http.StatusNotFound)
}

// limited counts a request. The limit of a view is its own, the other one that of
// all views of the API, which uploads and downloads are not, for who has not logged in
// by the framework's own means (a signature is none).
func (s *Server) limited(at route, loggedIn bool) (over, throttled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !loggedIn && !strings.HasPrefix(at.name, "upload") && at.name != "download" {
		s.views["*"]++
		throttled = s.opts.Throttle > 0 && s.views["*"] > s.opts.Throttle
	}
	s.views[at.name]++
	return s.opts.ViewLimit > 0 && at.name != "" && s.views[at.name] > s.opts.ViewLimit, throttled
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func notFound(w http.ResponseWriter) { reply(w, http.StatusNotFound, dict{"detail": "Not found."}) }

// page is what Django answers a browser.
func page(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<h1>%d</h1>", status)
}

// broken is what Django answers when a view raises.
func broken(w http.ResponseWriter) { page(w, http.StatusInternalServerError) }

var authorization = regexp.MustCompile(`^SREGISTRY-HMAC-SHA256 Credential=([^,]*),Signature=([0-9a-f]{64})$`)

// signer returns whom a signature is of, "" if the header is none of a user.
func signer(header string) (user string, wellFormed bool) {
	m := authorization.FindStringSubmatch(header)
	if m == nil {
		return "", false
	}
	credential := strings.Split(m[1], "/")
	if len(credential) != 3 {
		return "", false
	}
	name, err := base64.StdEncoding.DecodeString(credential[1])
	if user = string(name); err != nil || user != User && user != Guest {
		return "", true
	}
	return user, true
}

// signedBy checks a signature as the server does, over the collection's name as it
// is. ok is false for any fault.
func (s *Server) signedBy(header, kind, in, name, tag string) bool {
	user, _ := signer(header)
	if user == "" {
		return false
	}
	m := authorization.FindStringSubmatch(header)
	credential := strings.Split(m[1], "/")
	if credential[0] != kind || credential[2] != s.now().UTC().Format("20060102T15")+"Z" {
		return false
	}
	got, _ := hex.DecodeString(m[2])
	tokens := []string{Token, s.opts.Trust}
	if user == Guest {
		tokens = []string{GuestToken}
	}
	for _, token := range tokens {
		mac := hmac.New(sha256.New, []byte(token))
		_, _ = io.WriteString(mac, strings.Join([]string{kind, in, credential[2], name, tag, ""}, "|"))
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
	return dict{
		"id": col.id, "name": col.name, "add_date": addDate, "modify_date": addDate, "metadata": dict{}, "containers": containers,
	}
}

func (s *Server) listCollections(w http.ResponseWriter, r *http.Request, _ []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var public []*collection
	for _, col := range s.collections {
		if !col.private {
			public = append(public, col)
		}
	}
	sort.Slice(public, func(i, j int) bool { return public[i].id < public[j].id })
	s.replyPage(w, r, len(public), func(i int) dict { return s.describedCollection(public[i]) })
}

func (s *Server) listContainers(w http.ResponseWriter, r *http.Request, _ []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var public []*container
	for _, c := range s.containers {
		if !c.in.private {
			public = append(public, c)
		}
	}
	s.replyPage(w, r, len(public), func(i int) dict { return public[i].facts() })
}

// replyPage answers with the page of n things that is asked for.
func (s *Server) replyPage(w http.ResponseWriter, r *http.Request, n int, describe func(int) dict) {
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit <= 0 {
		limit = 10
	}
	if s.opts.MaxPage > 0 {
		limit = min(limit, s.opts.MaxPage)
	}
	offset, _ := strconv.Atoi(r.FormValue("offset"))
	end := min(offset+limit, n)
	results := []dict{}
	for i := min(offset, end); i < end; i++ {
		results = append(results, describe(i))
	}
	// The server knows itself by another name than its clients do.
	link := "http://registry.internal" + r.URL.Path + "?limit=%d&offset=%d"
	page := dict{"count": n, "next": nil, "previous": nil, "results": results}
	if offset > 0 {
		page["previous"] = fmt.Sprintf(link, limit, max(offset-limit, 0))
	}
	if end < n {
		page["next"] = fmt.Sprintf(link, limit, end)
	}
	reply(w, http.StatusOK, page)
}

func (s *Server) getCollection(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collections[strings.ToLower(m[1])]
	switch {
	case col == nil:
		reply(w, http.StatusOK, dict{})
	case col.private:
		broken(w)
	default:
		reply(w, http.StatusOK, s.describedCollection(col))
	}
}

// search finds containers by their whole name, in lower case; the private ones too.
func (s *Server) search(w http.ResponseWriter, _ *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, name, tag := strings.ToLower(m[1]), strings.ToLower(m[2]), strings.ToLower(m[3])
	found := []dict{}
	for _, c := range s.containers {
		if c.name == name && (in == "" || c.in.name == in) && (tag == "" || c.tag == tag) {
			found = append(found, c.facts())
		}
	}
	reply(w, http.StatusOK, found)
}

// facts are what a search and a manifest tell.
func (c *container) facts() dict {
	version, metadata := any(c.version), dict{}
	if c.version == "" {
		version = nil
	}
	for key, value := range c.metadata {
		metadata[key] = value
	}
	if c.labels != nil {
		metadata["labels"] = c.labels
	}
	return dict{
		"id": c.id, "name": c.name, "tag": c.tag, "add_date": c.modified.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		"metrics": dict{}, "version": version, "frozen": c.frozen, "metadata": metadata, "collection": c.in.name,
	}
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

// manifest looks at a login only where the collection is private.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m[3] == "" {
		m[3] = "latest"
	}
	c := s.findBuilt(m[1], m[2], m[3])
	if c == nil {
		notFound(w)
		return
	}
	auth := r.Header.Get("Authorization")
	user, wellFormed := signer(auth)
	switch {
	case s.opts.WeeklyLimit > 0 && c.downloads >= s.opts.WeeklyLimit:
		reply(w, http.StatusOK, 429)
	case c.in.private && auth == "":
		reply(w, http.StatusForbidden, dict{"detail": "Authentication Required"})
	case c.in.private && !wellFormed:
		broken(w)
	case c.in.private && user != c.in.owner:
		reply(w, http.StatusForbidden, dict{"detail": "Unauthorized"})
	case c.in.private && !s.signedBy(auth, "pull", c.in.name, c.name, c.tag):
		reply(w, http.StatusOK, 400)
	default:
		facts := c.facts()
		facts["image"] = fmt.Sprintf("%s/containers/%d/download/%s", s.URL, c.id, c.in.secret)
		reply(w, http.StatusOK, facts)
	}
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, m []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.findBuilt(m[1], m[2], m[3])
	switch {
	case c == nil:
		reply(w, http.StatusNotFound, dict{"detail": "Container Not Found"})
	case c.frozen:
		reply(w, http.StatusForbidden, dict{"detail": c.fullName() + " is frozen, delete not allowed."})
	case !s.signedBy(r.Header.Get("Authorization"), "delete", c.in.name, c.name, c.tag):
		reply(w, http.StatusForbidden, dict{"detail": "Unauthorized"})
	default:
		s.clean(c)
		s.drop(c)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) openUpload(w http.ResponseWriter, r *http.Request, _ []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked struct{ Collection, Name, Tag string }
	auth := r.Header.Get("Authorization")
	if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Collection == "" || asked.Name == "" || asked.Tag == "" ||
		!s.signedBy(auth, "push", normalize(asked.Collection), asked.Name, asked.Tag) {
		broken(w)
		return
	}
	user, _ := signer(auth)
	if col := s.collections[normalize(asked.Collection)]; col != nil && col.owner != user {
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
	auth := r.Header.Get("Authorization")
	user, _ := signer(auth)
	if in == nil || got == nil || user != in.owner || !s.signedBy(auth, "upload", in.name, fields["name"], fields["tag"]) {
		broken(w)
		return
	}
	message, ok := s.storeUpload(in, fields["name"], fields["tag"], got)
	if !ok {
		broken(w)
		return
	}
	reply(w, http.StatusOK, dict{"message": message})
}

// storeUpload stores what was uploaded under the name that the server makes of
// name and tag. The file's is made of that and its MD5, so the same bytes are the
// same file, which goes when the container that it replaces goes.
func (s *Server) storeUpload(in *collection, name, tag string, got *object) (message string, ok bool) {
	_, name, tag = parse(name[strings.LastIndexByte(name, '/')+1:] + ":" + tag)
	c := &container{id: s.id(), in: in, name: name, tag: tag, path: filePath(in.name, name, tag, got.md5), version: got.md5, modified: s.now()}
	row := "library/" + name + ":" + tag + "@" + got.md5
	switch old := s.find(in.name, name, tag); {
	case len(c.path) > 255:
		return "Filename too long!\nMust be less than 255 characters", true
	case len(row) > 200: // of the database
		return "", false
	case old != nil && old.frozen:
		return row + " already exists.", true
	default:
		s.files[c.path] = got
		if old != nil {
			s.drop(old)
		}
		s.append(c)
		return "Upload Complete", true
	}
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
	if c == nil || c.path == "" {
		s.mu.Unlock()
		page(w, http.StatusNotFound)
		return
	}
	o := s.files[c.path]
	if o == nil {
		s.mu.Unlock()
		broken(w)
		return
	}
	over, content := s.opts.WeeklyLimit > 0 && c.downloads >= s.opts.WeeklyLimit, o.Reader()
	c.downloads++
	s.mu.Unlock()
	if over {
		page(w, http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/img")
	w.Header().Set("Content-Length", strconv.FormatInt(content.Size(), 10))
	_, _ = io.Copy(w, content) // a client that has gone is no matter
}
