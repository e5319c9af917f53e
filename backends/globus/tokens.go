// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// early is how long before its end a token is not used any more.
const early = time.Minute

// Tokens has the access tokens that requests are sent with: one for each resource server. They
// last for two days, and the login gets the next ones.
type tokens struct {
	remote string
	user   string              // the app that the secret belongs to; "" for a person's login
	ask    backends.SecretFunc // nil: there is no login
	client *client

	busy  chan struct{} // a lock that a caller can stop waiting for; guards the fields below
	login *login        // nil until it was asked for
	held  map[string]token
	again httpx.Renewal
}

// A token is good until it expires, or is refused.
type token struct {
	text    string
	expires time.Time // zero: not known
}

func (t token) good() bool {
	return t.text != "" && (t.expires.IsZero() || time.Until(t.expires) > early)
}

// A login is what a secret says.
type login struct {
	text    string            // the secret
	app     *url.Userinfo     // an app with its secret; nil for a person
	id      string            // the app by which the person logged in
	refresh map[string]string // refresh tokens by resource server
	access  string            // a token for the Transfer API, used until it is refused
}

func newTokens(env backends.Env, c *client) *tokens {
	return &tokens{remote: env.Remote, user: env.User, ask: env.Secret, client: c, busy: make(chan struct{}, 1), held: map[string]token{}}
}

func (t *tokens) lock(ctx context.Context) error {
	select {
	case t.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// get returns a token that, as far as we know, is good; "" if the login has none for the data
// of that collection: everybody may read some.
func (t *tokens) get(ctx context.Context, server string) (string, error) {
	if t.ask == nil {
		return "", fmt.Errorf("%w: remote %s has no login (%s, or set user and token_file to those of an app)",
			backends.ErrUnauthorized, t.remote, t.client.loginLine())
	}
	if err := t.lock(ctx); err != nil {
		return "", err
	}
	defer func() { <-t.busy }()
	if held := t.held[server]; held.good() {
		return held.text, nil
	}
	if t.login == nil {
		if _, err := t.load(ctx, false); err != nil {
			return "", err
		}
	}
	return t.fetch(ctx, server)
}

// renew returns another token than refused, or the refusal.
func (t *tokens) renew(ctx context.Context, server, refused string, refusal error) (string, error) {
	if err := t.lock(ctx); err != nil {
		return "", err
	}
	defer func() { <-t.busy }()
	if held := t.held[server]; held.good() && held.text != refused {
		return held.text, nil // another request was faster
	}
	delete(t.held, server)
	if t.login != nil && t.login.access == refused {
		t.login.access = ""
	}
	changed, err := t.load(ctx, false)
	if err != nil {
		return "", err
	}
	text, err := t.fetch(ctx, server)
	switch {
	case err == nil && text != "" && text != refused:
		return text, nil
	case err != nil && !errors.Is(err, backends.ErrUnauthorized):
		return "", err
	case err == nil:
		err = refusal
	}
	// A login that is simply wrong must not become a storm of them.
	if changed || !t.again.MayGuess() {
		return "", err
	}
	if changed, loadErr := t.load(ctx, true); loadErr != nil || !changed {
		return "", errors.Join(err, loadErr)
	}
	text, err = t.fetch(ctx, server)
	if err == nil && (text == "" || text == refused) {
		return "", refusal
	}
	return text, err
}

// load asks for the login, and reports whether it is another one.
func (t *tokens) load(ctx context.Context, fresh bool) (changed bool, err error) {
	text, err := t.ask(ctx, fresh)
	if errors.Is(err, backends.ErrUnauthorized) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("%w: %v", backends.ErrUnauthorized, err)
	}
	text = strings.TrimSpace(text)
	if t.login != nil && t.login.text == text {
		return false, nil
	}
	l, err := parseLogin(t.user, text)
	if err != nil {
		return false, fmt.Errorf("%w (%s)", err, t.client.loginLine())
	}
	t.login, t.held = l, map[string]token{}
	return true, nil
}

// parseLogin reads a secret. No error tells any of it.
func parseLogin(user, text string) (*login, error) {
	l := &login{text: text, refresh: map[string]string{}}
	switch {
	case user != "":
		l.app = url.UserPassword(user, text)
		return l, nil
	case !strings.HasPrefix(text, "{"):
		if !isToken(text) {
			return nil, fmt.Errorf("%w: the stored token has a character that no token has", backends.ErrUnauthorized)
		}
		l.access = text
		return l, nil
	}
	var s storedLogin
	if json.Unmarshal([]byte(text), &s) != nil {
		return nil, fmt.Errorf("%w: the stored login begins like JSON but is none", backends.ErrUnauthorized)
	}
	if s.ResourceServer == transferServer && s.RefreshToken != "" { // as the sregistry client stores it
		s.RefreshTokens, s.ClientID = map[string]string{transferServer: s.RefreshToken}, sregistryClient
	}
	l.id, l.refresh = s.ClientID, s.RefreshTokens
	if l.refresh[transferServer] == "" || l.id == "" {
		return nil, fmt.Errorf("%w: the stored login has no token", backends.ErrUnauthorized)
	}
	return l, nil
}

// fetch gets a token by the login; "" if it has none for the data of that collection.
func (t *tokens) fetch(ctx context.Context, server string) (string, error) {
	l := t.login
	form := url.Values{}
	switch {
	case l.app != nil:
		form.Set("grant_type", "client_credentials")
		form.Set("scope", t.client.scope(server))
	case l.refresh[server] != "":
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", l.refresh[server])
		form.Set("client_id", l.id)
	case server == transferServer && l.access != "":
		t.held[server] = token{text: l.access}
		return l.access, nil
	case server == transferServer:
		return "", fmt.Errorf("%w: the token is not good any more (%s)", backends.ErrUnauthorized, t.client.loginLine())
	default:
		return "", nil
	}
	all, err := t.client.grant(ctx, form, l.app)
	if err != nil {
		return "", err
	}
	for _, g := range all {
		held := token{text: g.AccessToken}
		if g.ExpiresIn > 0 {
			held.expires = time.Now().Add(time.Duration(min(g.ExpiresIn, 1<<31)) * time.Second)
		}
		t.held[g.ResourceServer] = held
	}
	if text := t.held[server].text; text != "" {
		return text, nil
	}
	return "", fmt.Errorf("%w: the token that was given is for another service", backends.ErrBadAnswer)
}
