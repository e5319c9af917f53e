// SPDX-License-Identifier: Apache-2.0

package dropboxtest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// RefreshToken is what a login by a person gives, and what refreshes one.
const RefreshToken = "refresh-me"

// Expire makes all access tokens useless, as four hours do.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.tokens {
		s.tokens[token] = false
	}
}

// Accept makes token a good access token.
func (s *Server) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = true
}

// Authorize is the person who opens the page of a login and says yes. It
// returns the code that the page shows.
func (s *Server) Authorize(page string) (code string, err error) {
	u, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	q := u.Query()
	switch {
	case u.Path != "/oauth2/authorize" || q.Get("response_type") != "code" || q.Get("client_id") != s.opts.AppKey:
		return "", fmt.Errorf("dropboxtest: not a page to log in: %s", page)
	case q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("token_access_type") != "offline":
		return "", fmt.Errorf("dropboxtest: no PKCE, or no refresh token wanted: %s", page)
	case !strings.Contains(q.Get("scope"), "files.content.read"):
		return "", fmt.Errorf("dropboxtest: no scopes: %s", page)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	code = fmt.Sprintf("code%d", s.next())
	s.codes[code] = q.Get("code_challenge")
	return code, nil
}

// token serves oauth2/token (RFC 6749, 4.1.3 and 6; RFC 7636, 4.5).
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.Header.Get("Authorization") != "" || r.ParseForm() != nil || r.PostForm.Get("client_id") != s.opts.AppKey {
		Refuse(w, http.StatusBadRequest, `{"error": "invalid_client"}`)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := map[string]any{"token_type": "bearer", "expires_in": 14400}
	switch r.PostForm.Get("grant_type") {
	case "refresh_token":
		if r.PostForm.Get("refresh_token") != RefreshToken {
			Refuse(w, http.StatusBadRequest, `{"error": "invalid_grant", "error_description": "refresh token is invalid or revoked"}`)
			return
		}
	case "authorization_code":
		code := r.PostForm.Get("code")
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if s.codes[code] == "" || s.codes[code] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			Refuse(w, http.StatusBadRequest, `{"error": "invalid_grant", "error_description": "code doesn't exist or has expired"}`)
			return
		}
		delete(s.codes, code)
		answer["refresh_token"], answer["account_id"], answer["uid"], answer["scope"] = RefreshToken, "dbid:1", "1", "files.content.read"
	default:
		Refuse(w, http.StatusBadRequest, `{"error": "unsupported_grant_type"}`)
		return
	}
	access := fmt.Sprintf("sl.%d", s.next())
	s.tokens[access], answer["access_token"] = true, access
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) //nolint:errcheck,errchkjson // whoever asked may be gone
}

func (c *call) createLink() (any, *failure) {
	var arg struct {
		Path     string
		Settings any
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, fail := c.lookup(arg.Path)
	if fail != nil {
		return nil, fail
	}
	if c.links[n.id] != "" {
		return nil, refuse("shared_link_already_exists")
	}
	c.links[n.id] = fmt.Sprintf("https://www.dropbox.com/scl/fi/%d/%s?dl=0", c.next(), url.PathEscape(n.path[strings.LastIndexByte(n.path, '/')+1:]))
	return c.link(n), nil
}

func (c *call) listLinks() (any, *failure) {
	var arg struct {
		Path       string
		Cursor     string
		DirectOnly bool `json:"direct_only"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, fail := c.lookup(arg.Path)
	if fail != nil {
		return nil, fail
	}
	links := []any{}
	if c.links[n.id] != "" {
		links = append(links, c.link(n))
	}
	return map[string]any{"links": links, "has_more": false}, nil
}

// link returns the metadata of n's link. s.mu is held.
func (s *Server) link(n *node) map[string]any {
	m := s.metadata(n, true)
	return map[string]any{
		".tag": "file", "url": s.links[n.id], "id": n.id, "name": m["name"], "path_lower": m["path_lower"],
		"client_modified": m["client_modified"], "server_modified": m["server_modified"], "rev": n.rev, "size": n.body.Size(),
		"link_permissions": map[string]any{
			"can_revoke": true, "resolved_visibility": map[string]any{".tag": "public"}, "visibility_policies": []any{},
			"can_set_expiry": false, "can_remove_expiry": false, "allow_download": true, "can_allow_download": true,
			"can_disallow_download": false, "allow_comments": true, "team_restricts_comments": false,
		},
	}
}
