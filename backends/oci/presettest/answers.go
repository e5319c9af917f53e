// SPDX-License-Identifier: Apache-2.0

package presettest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
)

// answer gives what the service would.
func (s *Service) answer(rec *httptest.ResponseRecorder, req *http.Request, op *Operation, params []string) {
	switch s.typ {
	case "docker":
		s.hub(rec, req, params)
	case "ghcr":
		s.github(rec, req, op, params)
	case "quay":
		s.quay(rec, req)
	case "gitlab":
		s.gitlab(rec, req, op, params)
	case "harbor":
		s.harbor(rec, req, params)
	}
}

// token is what Docker Hub gives out for a login.
func (s *Service) token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("jwt-%d", s.jwt)
}

func (s *Service) secret() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.password
}

func (s *Service) hub(rec *httptest.ResponseRecorder, req *http.Request, params []string) {
	if req.Method == http.MethodPost {
		var login struct{ Identifier, Secret string }
		if json.NewDecoder(req.Body).Decode(&login) != nil || login.Identifier != s.opts.User || login.Secret != s.secret() {
			problem(rec, http.StatusUnauthorized, "Incorrect authentication credentials")
			return
		}
		give(rec, map[string]any{"access_token": s.token()})
		return
	}
	header := req.Header.Get("Authorization")
	if header != "" && header != "Bearer "+s.token() {
		problem(rec, http.StatusUnauthorized, "token is expired")
		return
	}
	repos, exists := s.visible(params[0], header != "")
	if !exists {
		problem(rec, http.StatusNotFound, "object not found")
		return
	}
	part, next := page(req, repos, "page_size", 10)
	results := []any{}
	for _, repo := range part {
		results = append(results, map[string]any{
			"name": strings.TrimPrefix(repo, params[0]+"/"), "namespace": params[0], "repository_type": "image", "status": 1,
			"status_description": "active", "is_private": slices.Contains(s.opts.Private, params[0]), "star_count": 0, "pull_count": 1,
			"last_updated": "2026-01-02T03:04:05Z", "date_registered": "2026-01-02T03:04:05Z",
		})
	}
	answer := map[string]any{"count": len(repos), "next": nil, "previous": nil, "results": results}
	if next > 0 {
		answer["next"] = "http://" + req.Host + withPage(req, next)
	}
	give(rec, answer)
}

func (s *Service) github(rec *httptest.ResponseRecorder, req *http.Request, op *Operation, params []string) {
	if req.Header.Get("Authorization") != "Bearer "+s.secret() {
		problem(rec, http.StatusUnauthorized, "Bad credentials")
		return
	}
	repos, exists := s.visible(params[0], true)
	if user := slices.Contains(s.opts.Users, params[0]); !exists || user != strings.HasPrefix(op.Path, "/users/") {
		problem(rec, http.StatusNotFound, "Not Found")
		return
	}
	part, next := page(req, repos, "per_page", 30)
	answer := []any{}
	for i, repo := range part {
		name := strings.TrimPrefix(repo, params[0]+"/")
		answer = append(answer, map[string]any{
			"id": i + 1, "name": name, "package_type": "container", "visibility": "private", "version_count": 1,
			"url":        "https://api.github.com/orgs/" + params[0] + "/packages/container/" + name,
			"html_url":   "https://github.com/orgs/" + params[0] + "/packages/container/package/" + name,
			"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z",
		})
	}
	if next > 0 {
		to := "http://" + req.Host + withPage(req, next)
		rec.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next", <%s>; rel="last"`, to, to))
	}
	give(rec, answer)
}

func (s *Service) quay(rec *httptest.ResponseRecorder, req *http.Request) {
	header := req.Header.Get("Authorization")
	if header != "" && header != "Bearer "+s.secret() {
		problem(rec, http.StatusUnauthorized, "invalid_token")
		return
	}
	namespace := req.URL.Query().Get("namespace")
	repos, _ := s.visible(namespace, header != "")
	// The token is opaque; this one is a page's number in disguise.
	at := 1
	if token, err := base64.URLEncoding.DecodeString(req.URL.Query().Get("next_page")); err == nil && len(token) > 0 {
		at, _ = strconv.Atoi(string(token)) // ours
	}
	from := min((at-1)*100, len(repos))
	to := min(from+100, len(repos))
	list := []any{}
	for _, repo := range repos[from:to] {
		ns, name, _ := strings.Cut(repo, "/")
		list = append(list, map[string]any{
			"namespace": ns, "name": name, "description": nil, "is_public": true, "kind": "image", "state": "NORMAL",
		})
	}
	answer := map[string]any{"repositories": list}
	if to < len(repos) {
		answer["next_page"] = base64.URLEncoding.EncodeToString([]byte(strconv.Itoa(at + 1)))
	}
	give(rec, answer)
}

func (s *Service) gitlab(rec *httptest.ResponseRecorder, req *http.Request, op *Operation, params []string) {
	given := req.Header.Get("Private-Token")
	if given != "" && given != s.secret() {
		problem(rec, http.StatusUnauthorized, "401 Unauthorized")
		return
	}
	first, _, _ := strings.Cut(params[0], "/")
	repos, exists := s.visible(params[0], given != "")
	if slices.Contains(s.opts.Private, first) && given == "" {
		exists = false
	}
	// A group is one that is no user's, and what is right below a user is a project.
	group := !slices.Contains(s.opts.Users, first)
	if !exists || group != strings.Contains(op.Path, "/groups/") {
		problem(rec, http.StatusNotFound, "404 Not Found")
		return
	}
	part, next := page(req, repos, "per_page", 20)
	answer := []any{}
	for i, repo := range part {
		answer = append(answer, map[string]any{
			"id": i + 1, "name": "", "path": repo, "project_id": 9, "location": "registry.example/" + repo,
			"created_at": "2026-01-02T03:04:05.000Z", "cleanup_policy_started_at": nil, "status": nil,
		})
	}
	rec.Header().Set("X-Next-Page", "")
	if next > 0 {
		rec.Header().Set("X-Next-Page", strconv.Itoa(next))
	}
	give(rec, answer)
}

func (s *Service) harbor(rec *httptest.ResponseRecorder, req *http.Request, params []string) {
	user, password, basic := req.BasicAuth()
	if basic && (user != s.opts.User || password != s.secret()) {
		problem(rec, http.StatusUnauthorized, "unauthorized")
		return
	}
	project := ""
	if len(params) > 0 {
		project = params[0]
	}
	repos, exists := s.visible(project, basic)
	if !exists {
		problem(rec, http.StatusNotFound, "project "+project+" not found")
		return
	}
	part, next := page(req, repos, "page_size", 10)
	answer := []any{}
	for i, repo := range part {
		answer = append(answer, map[string]any{
			"id": i + 1, "project_id": 1, "name": repo, "artifact_count": 1, "pull_count": 0,
			"creation_time": "2026-01-02T03:04:05.000Z", "update_time": "2026-01-02T03:04:05.000Z",
		})
	}
	rec.Header().Set("X-Total-Count", strconv.Itoa(len(repos)))
	if next > 0 {
		rec.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, withPage(req, next)))
	}
	give(rec, answer)
}
