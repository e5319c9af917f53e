// SPDX-License-Identifier: Apache-2.0

package globustest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
)

const transferServer = "transfer.api.globus.org"

// A grant is what a token is good for.
type grant struct {
	server   string
	scope    string // with what it depends on
	domain   string // of the identity that logged in
	refresh  bool   // it gets access tokens
	clientID string
}

// An authorization is what a person has allowed, and the code stands for.
type authorization struct {
	scopes    []string
	challenge string
	redirect  string
	clientID  string
	domain    string
}

// authorize is the page of Globus Auth, by which a person has logged in already and allows all.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != NativeApp || q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" {
		http.Error(w, "no such app", http.StatusBadRequest)
		return
	}
	scopes := splitScopes(q.Get("scope"))
	for _, scope := range scopes {
		if _, ok := s.serverOf(scope); !ok {
			http.Error(w, "unknown_scope", http.StatusBadRequest)
			return
		}
	}
	code := rand.Text()
	s.mu.Lock()
	s.codes[code] = authorization{scopes, q.Get("code_challenge"), q.Get("redirect_uri"), NativeApp, q.Get("session_required_single_domain")}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<html><body><code>" + code + "</code></body></html>"))
}

// Authorize does what a person does at the page of a login, and returns the code that it shows.
func (s *Server) Authorize(page string) (code string, err error) {
	r, err := http.NewRequest(http.MethodGet, page, http.NoBody) //nolint:noctx // it is not sent
	if err != nil {
		return "", err
	}
	w := httptest.NewRecorder()
	s.authorize(w, r)
	_, rest, ok := strings.Cut(w.Body.String(), "<code>")
	code, _, closed := strings.Cut(rest, "</code>")
	if !ok || !closed {
		return "", fmt.Errorf("HTTP %d: %s", w.Code, w.Body)
	}
	return code, nil
}

// token is where tokens are got.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.count("token")
	if err := r.ParseForm(); err != nil {
		answer(w, http.StatusBadRequest, object{"error": "invalid_request"})
		return
	}
	switch r.PostForm.Get("grant_type") {
	case "client_credentials":
		s.grantApp(w, r)
	case "authorization_code":
		s.grantCode(w, r.PostForm)
	case "refresh_token":
		s.grantRefresh(w, r.PostForm)
	default:
		answer(w, http.StatusBadRequest, object{"error": "unsupported_grant_type"})
	}
}

func (s *Server) grantApp(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	s.mu.Lock()
	known := id == App && s.secrets[secret]
	s.mu.Unlock()
	if !known {
		answer(w, http.StatusUnauthorized, object{"error": "invalid_client"})
		return
	}
	s.give(w, authorization{scopes: splitScopes(r.PostForm.Get("scope")), clientID: App}, false)
}

func (s *Server) grantCode(w http.ResponseWriter, form url.Values) {
	s.mu.Lock()
	a, ok := s.codes[form.Get("code")]
	delete(s.codes, form.Get("code"))
	s.mu.Unlock()
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != a.challenge || form.Get("redirect_uri") != a.redirect || form.Get("client_id") != a.clientID {
		answer(w, http.StatusUnauthorized, object{"error": "invalid_grant"})
		return
	}
	s.give(w, a, true)
}

func (s *Server) grantRefresh(w http.ResponseWriter, form url.Values) {
	s.mu.Lock()
	g, ok := s.tokens[form.Get("refresh_token")]
	s.mu.Unlock()
	if !ok || !g.refresh || form.Get("client_id") != g.clientID {
		answer(w, http.StatusBadRequest, object{"error": "invalid_grant"})
		return
	}
	s.give(w, authorization{scopes: []string{g.scope}, clientID: g.clientID, domain: g.domain}, false)
}

// give answers with a token for each scope.
func (s *Server) give(w http.ResponseWriter, a authorization, refresh bool) {
	var docs []object
	for _, scope := range a.scopes {
		server, ok := s.serverOf(scope)
		if !ok {
			answer(w, http.StatusBadRequest, object{"error": "unknown_scope", "error_description": "Unknown scope: " + scope})
			return
		}
		doc := object{
			"access_token": s.newToken(grant{server: server, scope: scope, domain: a.domain, clientID: a.clientID}), "scope": plain(scope),
			"expires_in": 172800, "token_type": "Bearer", "resource_server": server,
		}
		if refresh {
			doc["refresh_token"] = s.newToken(grant{server: server, scope: scope, domain: a.domain, refresh: true, clientID: a.clientID})
			doc["state"] = "sregfs"
		}
		docs = append(docs, doc)
	}
	if len(docs) == 0 {
		answer(w, http.StatusBadRequest, object{"error": "invalid_scope"})
		return
	}
	first := docs[0]
	others := []object{}
	first["other_tokens"] = append(others, docs[1:]...)
	answer(w, http.StatusOK, first)
}

func (s *Server) newToken(g grant) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "Ag" + rand.Text()
	s.tokens[text] = g
	return text
}

// RefreshToken returns one for the Transfer API alone, of an app of somebody else.
func (s *Server) RefreshToken(clientID string) string {
	return s.newToken(grant{server: transferServer, scope: transferScope, refresh: true, clientID: clientID})
}

// bearer returns what the token of a request is good for; ok is false if it is for another
// service, or none.
func (s *Server) bearer(r *http.Request, server string) (grant, bool) {
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.tokens[text]
	return g, ok && !g.refresh && g.server == server
}

// splitScopes splits at the blanks that are not in brackets.
func splitScopes(text string) (all []string) {
	depth, from := 0, 0
	for i, r := range text + " " {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ' ' && depth == 0:
			if i > from {
				all = append(all, text[from:i])
			}
			from = i + 1
		}
	}
	return all
}

func plain(scope string) string {
	scope, _, _ = strings.Cut(scope, "[")
	return scope
}

const (
	transferScope = "urn:globus:auth:scope:transfer.api.globus.org:all"
	scopePrefix   = "https://auth.globus.org/scopes/"
)

// serverOf returns the resource server of a scope; ok is false if there is no such scope.
func (s *Server) serverOf(scope string) (string, bool) {
	_, inner, _ := strings.Cut(strings.TrimSuffix(scope, "]"), "[")
	for dependent := range strings.FieldsSeq(inner) {
		id := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(dependent, "*"), scopePrefix), "/data_access")
		if c := s.collection(id); c == nil || !c.DataAccess {
			return "", false // there is none but for mapped collections
		}
	}
	if plain(scope) == transferScope {
		return transferServer, true
	}
	id, ok := strings.CutSuffix(strings.TrimPrefix(plain(scope), scopePrefix), "/https")
	if c := s.collection(id); !ok || c == nil || c.NoHTTPS {
		return "", false
	}
	return id, true
}

// consents reports whether a token has consent to access the data of a collection.
func (g grant) consents(c *collection) bool {
	return !c.DataAccess || slices.Contains(strings.FieldsFunc(g.scope, func(r rune) bool { return strings.ContainsRune("[] ", r) }), "*"+scopePrefix+c.id+"/data_access")
}

func (s *Server) collection(id string) *collection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.collections[id]
}
