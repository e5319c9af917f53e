// SPDX-License-Identifier: Apache-2.0

package hubtest

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

// The service as serve.py has it. Its router (sanic 20.12) unquotes the whole
// path before it matches, and takes a path for a container with anything behind
// it: "/repo/x" is a tag that there is not.
var (
	containerPath  = regexp.MustCompile(`(?s)^/container/([^/]+)/([^/:]+)(.*)$`)
	collectionPath = regexp.MustCompile(`^/collections/(\d+)$`)
	commonPath     = regexp.MustCompile(`^/(|about|collections/my|labels)$`)
)

const gotoURL = "https://datasets.datalad.org/?dir=/shub"

// fields are those of a record that are answered, of what a record has.
var fields = []string{"id", "name", "branch", "commit", "tag", "version", "size_mb", "image"}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/api")
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	text, top := s.index, s.opts.TopURL
	if text == nil {
		text = Index(s.images)
	}
	s.mu.Unlock()
	NewService(text, top).answer(w, r, path)
}

// A Service answers for one images.json.
type Service struct {
	images      map[string]map[string]dict // by name, then by tag or version
	collections map[string]string          // their full names
}

// NewService prepares the answers as serve.py does when it starts. A text that
// is no index has none.
func NewService(index []byte, topURL string) *Service {
	var raw struct {
		Images      map[string][]dict `json:"images"`
		Collections map[string]struct {
			FullName string `json:"full_name"`
		} `json:"collections"`
	}
	s := &Service{images: map[string]map[string]dict{}, collections: map[string]string{}}
	if json.Unmarshal(index, &raw) != nil {
		return s
	}
	for id, c := range raw.Collections {
		s.collections[id] = c.FullName
	}
	built := func(rec dict) string { date, _ := rec["build_date"].(string); return date }
	for name, files := range raw.Images {
		found := map[string]dict{}
		var latest dict
		for _, rec := range files {
			rec["name"] = name
			file, _ := rec["file"].(string)
			rec["image"] = topURL + "/" + file
			if latest == nil || built(latest) < built(rec) {
				latest = rec
			}
			for _, field := range []string{"tag", "version"} {
				id, ok := rec[field].(string)
				if old := found[id]; ok && (old == nil || built(old) <= built(rec)) {
					found[id] = rec
				}
			}
		}
		if found["latest"] == nil && latest != nil {
			found["latest"] = latest
		}
		s.images[name] = found
	}
	return s
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, path string) {
	if commonPath.MatchString(path) {
		http.Redirect(w, r, gotoURL, http.StatusFound)
		return
	}
	if m := collectionPath.FindStringSubmatch(path); m != nil {
		if name := s.collections[m[1]]; name != "" {
			http.Redirect(w, r, gotoURL+"/"+name, http.StatusFound)
			return
		}
		reply(w, http.StatusNotFound, dict{"detail": "Not found."})
		return
	}
	m := containerPath.FindStringSubmatch(path)
	if m == nil {
		http.NotFound(w, r)
		return
	}
	key := strings.TrimPrefix(m[3], ":")
	if key == "" {
		key = "latest"
	}
	rec, ok := s.images[m[1]+"/"+m[2]][key]
	if !ok {
		reply(w, http.StatusNotFound, dict{"detail": "Not found."})
		return
	}
	body := dict{}
	for _, field := range fields {
		if value, ok := rec[field]; ok {
			body[field] = value
		}
	}
	reply(w, http.StatusOK, body)
}

// ServeHTTP serves the paths below "/api".
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.answer(w, r, r.URL.Path) }

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
