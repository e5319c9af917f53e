// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/oauth"
	"golang.org/x/oauth2"

	"github.com/sregfs/sregfs/backends"
)

// scopes are the permissions that a login asks for.
var scopes = []string{
	"account_info.read", "files.metadata.read", "files.metadata.write", "files.content.read", "files.content.write",
	"sharing.read", "sharing.write",
}

// StartLogin begins a login by a person (OAuth 2 with PKCE, RFC 7636: no secret
// of the app is needed). The page at authorize shows a code; exchange turns it,
// once, into what is to be stored and given back by Env.Secret from then on.
//
// Errors: fs.ErrInvalid if no app_key is configured; of exchange:
// ErrUnauthorized for a wrong code, ErrUnavailable.
func (c *client) StartLogin() (authorize string, exchange func(ctx context.Context, code string) (secret string, err error), err error) {
	if c.appKey == "" {
		return "", nil, fmt.Errorf("%w: remote %s: logging in needs app_key, the key of an app made on https://www.dropbox.com/developers/apps",
			fs.ErrInvalid, c.remote)
	}
	flow, err := oauth.NewPKCEFlow(c.appKey, oauth.WithScopes(scopes...), oauth.WithTokenAccessType(oauth.TokenAccessTypeOffline),
		oauth.WithHTTPClient(c.http))
	if err != nil {
		return "", nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	page, err := url.Parse(flow.AuthCodeURL())
	if err != nil {
		return "", nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	if home := c.transport.home; home != nil {
		page.Scheme, page.Host = home.Scheme, home.Host
	}
	return page.String(), func(ctx context.Context, code string) (string, error) {
		token, err := flow.Exchange(ctx, strings.TrimSpace(code))
		if err != nil {
			return "", loginError(ctx, err)
		}
		if token.RefreshToken == "" {
			return "", fmt.Errorf("%w: the answer to the code has no refresh token", backends.ErrBadAnswer)
		}
		text, err := json.Marshal(secret{RefreshToken: token.RefreshToken, AppKey: c.appKey})
		return string(text), err
	}, nil
}

// Knock returns a request that Dropbox refuses without a login.
func (c *client) Knock() (method, address string) {
	return http.MethodPost, c.Address() + "/2/users/get_current_account"
}

// Address implements backends.Addressed.
func (c *client) Address() string {
	if c.transport.home != nil {
		return c.transport.home.String()
	}
	return "https://api.dropboxapi.com"
}

// renewEvery is how often a refused secret is asked for anew.
const renewEvery = time.Minute

// A secret is a login as it is stored: this in JSON, or an access token alone.
type secret struct {
	AccessToken  string `json:"access_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	AppKey       string `json:"app_key,omitempty"`
	AppSecret    string `json:"app_secret,omitempty"`
}

// Tokens has the access token that requests are sent with. An access token of
// today lasts four hours, and a refresh token gets the next one.
type tokens struct {
	remote string
	ask    backends.SecretFunc // nil: there is no login
	appKey string
	http   *http.Client

	busy    chan struct{} // a lock that a caller can stop waiting for; guards the fields below
	login   secret
	current *oauth2.Token
	asked   time.Time // when a fresh secret was last asked for
}

func newTokens(env backends.Env, appKey string) *tokens {
	return &tokens{remote: env.Remote, ask: env.Secret, appKey: appKey, busy: make(chan struct{}, 1)}
}

func (t *tokens) lock(ctx context.Context) error {
	select {
	case t.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// get returns a token that, as far as we know, is good.
func (t *tokens) get(ctx context.Context) (string, error) {
	if t.ask == nil {
		return "", fmt.Errorf("%w: remote %s has no token (set token_file, token_env or token_command, or run \"sreg login %s\")",
			backends.ErrUnauthorized, t.remote, t.remote)
	}
	if err := t.lock(ctx); err != nil {
		return "", err
	}
	defer func() { <-t.busy }()
	if t.current.Valid() {
		return t.current.AccessToken, nil
	}
	if t.login.RefreshToken == "" {
		if err := t.load(ctx, false); err != nil {
			return "", err
		}
	}
	return t.refresh(ctx)
}

// renew returns another token than refused, or the refusal.
func (t *tokens) renew(ctx context.Context, refused string, refusal error) (string, error) {
	if err := t.lock(ctx); err != nil {
		return "", err
	}
	defer func() { <-t.busy }()
	if t.current.Valid() && t.current.AccessToken != refused {
		return t.current.AccessToken, nil // another request was faster
	}
	t.current, t.login.AccessToken = nil, ""
	if t.login.RefreshToken != "" {
		token, err := t.refresh(ctx)
		if err == nil || !errors.Is(err, backends.ErrUnauthorized) {
			return token, err
		}
	}
	// A token that is simply wrong must not become a storm of logins.
	if !t.asked.IsZero() && time.Since(t.asked) < renewEvery {
		return "", refusal
	}
	t.asked = time.Now()
	if err := t.load(ctx, true); err != nil {
		return "", err
	}
	token, err := t.refresh(ctx)
	if err == nil && token == refused {
		t.current = nil
		return "", refusal
	}
	return token, err
}

// load asks for the stored login.
func (t *tokens) load(ctx context.Context, fresh bool) error {
	text, err := t.ask(ctx, fresh)
	if errors.Is(err, backends.ErrUnauthorized) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %v", backends.ErrUnauthorized, err)
	}
	t.login, err = parseSecret(text)
	return err
}

// parseSecret reads a stored login. No error tells any of it.
func parseSecret(text string) (secret, error) {
	text = strings.TrimSpace(text)
	s := secret{AccessToken: text}
	if strings.HasPrefix(text, "{") {
		s = secret{}
		if json.Unmarshal([]byte(text), &s) != nil {
			return secret{}, fmt.Errorf("%w: the stored login begins like JSON but is none", backends.ErrUnauthorized)
		}
	}
	switch {
	case s.AccessToken == "" && s.RefreshToken == "":
		return secret{}, fmt.Errorf("%w: the stored login has no token", backends.ErrUnauthorized)
	case !isASCII(s.AccessToken) || !isASCII(s.RefreshToken):
		return secret{}, fmt.Errorf("%w: the stored token has a character that no token has", backends.ErrUnauthorized)
	}
	return s, nil
}

// refresh makes current out of login.
func (t *tokens) refresh(ctx context.Context) (string, error) {
	if t.login.AccessToken != "" {
		t.current = &oauth2.Token{AccessToken: t.login.AccessToken}
		t.login.AccessToken = "" // the next one comes from the refresh token, if there is one
		return t.current.AccessToken, nil
	}
	key := t.login.AppKey
	if key == "" {
		key = t.appKey
	}
	if key == "" {
		return "", fmt.Errorf("%w: a refresh token needs the app_key of its app", backends.ErrUnauthorized)
	}
	token, err := oauth.Refresh(ctx, key, &oauth2.Token{RefreshToken: t.login.RefreshToken},
		oauth.WithHTTPClient(t.http), oauth.WithAppSecret(t.login.AppSecret))
	if err != nil {
		return "", loginError(ctx, err)
	}
	if !isASCII(token.AccessToken) {
		return "", fmt.Errorf("%w: the new access token is none", backends.ErrBadAnswer)
	}
	t.current = token
	return token.AccessToken, nil
}

// loginError says what an error of the token route means: there a refusal of
// the arguments is one of the login.
func loginError(ctx context.Context, err error) error {
	err = translate(ctx, err)
	if errors.Is(err, fs.ErrInvalid) {
		return fmt.Errorf("%w: Dropbox refused to log in: %v", backends.ErrUnauthorized, err)
	}
	return err
}

// isASCII reports whether s can be sent in a header.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
