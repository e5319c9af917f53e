// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	authorizePath = "/v2/oauth2/authorize"
	tokenPath     = "/v2/oauth2/token"
	codePath      = "/v2/web/auth-code" // the page that shows the code

	transferScope = "urn:globus:auth:scope:transfer.api.globus.org:all"
	scopePrefix   = "https://auth.globus.org/scopes/" // whatever the host is

	// sregistryClient is the app of the sregistry client, whose logins are taken over.
	sregistryClient = "ae32247c-2c17-4c43-92b5-ba7fe9957dbb"
)

// scope returns what to ask of Globus Auth for a resource server: the Transfer API, or the data
// of a collection.
func (c *client) scope(server string) string {
	if server != transferServer {
		return scopePrefix + server + "/https" + c.access(server)
	}
	return transferScope + c.access(c.dataAccess...)
}

// access returns the consents on which a scope depends: the stars say that they can be withdrawn
// by themselves.
func (c *client) access(collections ...string) string {
	var all []string
	for _, id := range collections {
		for _, listed := range c.dataAccess {
			if id == listed {
				all = append(all, "*"+scopePrefix+id+"/data_access")
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "[" + strings.Join(all, " ") + "]"
}

// StartLogin begins a login by a person (OAuth 2 with PKCE, RFC 7636: no secret of the app is
// needed). Globus shows a code; exchange turns it, once, into what is to be stored and given
// back by Env.Secret from then on.
//
// Errors: errors.ErrUnsupported for a remote that logs in as an app; fs.ErrInvalid if no
// client_id is configured; of exchange: ErrUnauthorized for a wrong code, ErrUnavailable.
func (c *client) StartLogin() (page string, exchange func(ctx context.Context, code string) (secret string, err error), err error) {
	if c.tokens.user != "" {
		return "", nil, errors.ErrUnsupported
	}
	if c.clientID == "" {
		return "", nil, fmt.Errorf("%w: remote %s: logging in needs client_id, the id of a native app registered on https://app.globus.org/settings/developers",
			fs.ErrInvalid, c.remote)
	}
	scopes := []string{c.scope(transferServer)}
	for _, id := range c.endpoints {
		scopes = append(scopes, c.scope(id))
	}
	verifier := oauth2.GenerateVerifier()
	redirect := c.auth.String() + codePath
	query := url.Values{
		"client_id": {c.clientID}, "redirect_uri": {redirect}, "scope": {strings.Join(scopes, " ")}, "state": {"sregfs"},
		"response_type": {"code"}, "access_type": {"offline"}, // which gives refresh tokens
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
		"prompt": {"login"}, // a session of its own, as some collections demand
	}
	maps.Copy(query, c.session.params)
	return c.auth.String() + authorizePath + "?" + query.Encode(), func(ctx context.Context, code string) (string, error) {
		form := url.Values{
			"grant_type": {"authorization_code"}, "code": {strings.TrimSpace(code)}, "redirect_uri": {redirect},
			"code_verifier": {verifier}, "client_id": {c.clientID},
		}
		granted, err := c.grant(ctx, form, nil)
		if err != nil {
			return "", err
		}
		stored := storedLogin{ClientID: c.clientID, RefreshTokens: map[string]string{}}
		for _, g := range granted {
			stored.RefreshTokens[g.ResourceServer] = g.RefreshToken
			if g.RefreshToken == "" {
				return "", fmt.Errorf("%w: the answer to the code has no refresh token", backends.ErrBadAnswer)
			}
		}
		if stored.RefreshTokens[transferServer] == "" {
			return "", fmt.Errorf("%w: the answer to the code has no token for %s", backends.ErrBadAnswer, transferServer)
		}
		text, err := json.Marshal(stored)
		return string(text), err
	}, nil
}

// A granted token is for one resource server.
type granted struct {
	AccessToken    string `json:"access_token"`
	RefreshToken   string `json:"refresh_token"`
	ResourceServer string `json:"resource_server"`
	ExpiresIn      int64  `json:"expires_in"` // seconds
}

// grant asks Globus Auth for tokens. client, if not nil, is the app that proves who it is.
//
// Errors: backends.ErrUnauthorized if they are refused.
func (c *client) grant(ctx context.Context, form url.Values, client *url.Userinfo) ([]granted, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.auth.String()+tokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if client != nil {
		password, _ := client.Password()
		req.SetBasicAuth(client.Username(), password)
	}
	resp, err := httpx.Answer(c.http, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, c.grantRefused(resp)
	}
	var answer struct {
		granted

		Others []granted `json:"other_tokens"`
	}
	if err := httpx.JSON(resp.Body, &answer); err != nil {
		return nil, err
	}
	all := append([]granted{answer.granted}, answer.Others...)
	for _, g := range all {
		if !isToken(g.AccessToken) || g.ResourceServer == "" {
			return nil, fmt.Errorf("%w: the new access token is none", backends.ErrBadAnswer)
		}
	}
	return all, nil
}

// grantRefused says what a refusal by Globus Auth means: there one of the arguments is one of
// the login.
func (c *client) grantRefused(resp *http.Response) error {
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
		return httpx.Error(resp)
	}
	text, err := httpx.ReadAll(resp.Body)
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err != nil || json.Unmarshal(text, &answer) != nil || answer.Error == "" {
		resp.Body = http.NoBody
		return c.advise(transferServer, httpx.Error(resp))
	}
	detail := answer.Error
	if answer.Description != "" {
		detail += ": " + backends.Redact(answer.Description)
	}
	return backends.Saying(backends.ErrUnauthorized, "Globus refuses the login (%.200q): %s", detail, c.loginLine())
}

// isToken reports whether s can be sent in a header.
func isToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// A storedLogin is what StartLogin gives to be stored, or what the sregistry client has stored:
// a token for one resource server.
type storedLogin struct {
	ClientID      string            `json:"client_id,omitempty"`
	RefreshTokens map[string]string `json:"refresh_tokens,omitempty"` // by resource server

	AccessToken    string `json:"access_token,omitempty"`
	RefreshToken   string `json:"refresh_token,omitempty"`
	ResourceServer string `json:"resource_server,omitempty"`
}
