// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// A login has the token of a user. It is read when it is first needed, and
// again when it was refused.
type login struct {
	user   string
	secret backends.SecretFunc

	mu       sync.Mutex // guards the fields below
	token    string
	distrust string // a token that the framework's own login has refused
}

// get returns the token; a fresh one if the last is the one refused.
// Errors: backends.ErrUnauthorized if there is none, or only the refused one.
func (l *login) get(ctx context.Context, refused string) (string, error) {
	if l.secret == nil {
		return "", fmt.Errorf("%w: the remote has no token (set user and token_file)", backends.ErrUnauthorized)
	}
	l.mu.Lock()
	token := l.token
	l.mu.Unlock()
	if token != "" && token != refused {
		return token, nil
	}
	token, err := l.secret(ctx, refused != "")
	if err != nil {
		return "", err
	}
	if token == "" || token == refused {
		return "", fmt.Errorf("%w: the server refuses the token", backends.ErrUnauthorized)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
	return token, nil
}

// known reports whether there is a token to try with.
func (l *login) known() bool { return l.secret != nil }

// trusted returns the token if the framework's own login may take it, else "".
func (l *login) trusted(ctx context.Context) string {
	if !l.known() || l.user == "" {
		return ""
	}
	token, err := l.get(ctx, "")
	if err != nil {
		return "" // what is public can be read without
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if token == l.distrust {
		return ""
	}
	return token
}

func (l *login) refuse(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.distrust = token
}

// asUser calls send with the framework's own login, which the views of the API take for
// what needs none: who has it is not counted among the unknown addresses, and some servers
// answer nobody else. Where the token is refused there, send is called without.
func (c *client) asUser(ctx context.Context, send func(auth string) error) error {
	token := c.login.trusted(ctx)
	for token != "" {
		err := send("Token " + token)
		if s := statusOf(err); s != http.StatusUnauthorized && s != http.StatusForbidden || errors.Is(err, backends.ErrRateLimited) {
			return err
		}
		c.login.refuse(token)
		if token, err = c.login.get(ctx, token); err != nil {
			break
		}
	}
	return send("")
}

// CheckLogin asks the server whether the token is the user's. Nothing else proves
// that: what is public is given to everybody, whatever token comes along. A server
// without the library API cannot be asked whose a token is, but whether it is one.
//
// Errors: those of backends.Backend.Stat.
func (c *client) CheckLogin(ctx context.Context) error {
	if c.login.secret == nil {
		return nil // public collections need none
	}
	err := c.askLibrary(ctx)
	if isNotHere(err) {
		return c.checkToken(ctx)
	}
	if err == nil {
		_, err = c.entity(ctx)
	}
	return err
}

// versionPath is where a server that has the library API says so, whoever asks.
const versionPath = "/version"

// shut reports whether err is that of a view that looks at no token: where API_REQUIRE_AUTH
// is set, the framework's own login opens everything, and nothing else does.
func shut(err error) bool {
	return errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized)
}

// askLibrary reports whether the server has the library API and takes the token
// there. To a token that it does not know the server says 404, as one without the
// API does.
//
// Errors: fs.ErrNotExist if there is no library API; backends.ErrUnauthorized.
func (c *client) askLibrary(ctx context.Context) error {
	token, err := c.login.get(ctx, "")
	if err != nil {
		return err
	}
	ask := func() error { return c.bearer(ctx, http.MethodGet, "/v1/token-status", nil, nil) }
	if err = ask(); shut(err) {
		return fmt.Errorf("%w: the server lets no token into its library API: %v", fs.ErrNotExist, err)
	} else if !isNotHere(err) {
		return err
	}
	req, asked := httpx.NewRequest(ctx, http.MethodGet, c.url(versionPath), nil)
	if asked == nil {
		asked = c.data(req, &struct{}{})
	}
	switch {
	case isNotHere(asked) || errors.Is(asked, backends.ErrBadAnswer):
		return backends.NotFound("the server has no library API")
	case asked != nil:
		return asked
	}
	if _, err := c.login.get(ctx, token); err != nil {
		return err
	}
	if err = ask(); isNotHere(err) {
		return fmt.Errorf("%w: the server does not know the token", backends.ErrUnauthorized)
	}
	return err
}

// entity returns the number of the user, which the server tells to nobody else. The
// token is known to be somebody's.
//
// Errors: backends.ErrUnauthorized if it is another user's.
func (c *client) entity(ctx context.Context) (id string, err error) {
	if c.login.user == "" {
		return "", fmt.Errorf("%w: the remote has no user (set user and token_file)", backends.ErrUnauthorized)
	}
	var told identified
	err = c.bearer(ctx, http.MethodGet, "/v1/entities/"+escape(c.login.user), nil, &told)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: the token is not that of user %q", backends.ErrUnauthorized, c.login.user)
	case err == nil && told.ID == "":
		err = fmt.Errorf("%w: a user without an id", backends.ErrBadAnswer)
	}
	return string(told.ID), err
}

// checkToken asks by the framework's own login, which the views of the API take besides the
// signatures, whether the token is one.
func (c *client) checkToken(ctx context.Context) error {
	token, err := c.login.get(ctx, "")
	if err != nil {
		return err
	}
	if err = c.askAs(ctx, token); errors.Is(err, fs.ErrPermission) {
		if token, err = c.login.get(ctx, token); err == nil {
			err = c.askAs(ctx, token)
		}
	}
	if errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized) {
		return fmt.Errorf("%w: the server does not know the token: %v", backends.ErrUnauthorized, err)
	}
	return err
}

// askAs asks for one collection with a token.
func (c *client) askAs(ctx context.Context, token string) error {
	req, err := httpx.NewRequest(ctx, http.MethodGet, c.url("/api/collections/?limit=1"), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Token "+token)
	return c.object(req, &struct{}{})
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.home.String() }
