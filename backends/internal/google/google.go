// SPDX-License-Identifier: Apache-2.0

// Package google logs in to the services of Google: service accounts, what "gcloud auth
// application-default login" stores, the metadata server of a machine in Google's cloud,
// and a login by a person's browser. It knows nothing of any one service.
//
// Start at [Login].
package google

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// Options say how to log in. They are settings of a remote.
type Options struct {
	Scopes []string // what the login is to allow

	// Credentials is a file with a login, as a secret would be; "" for none. It goes before
	// the application-default credentials.
	Credentials string
	// ClientID and ClientSecret are those of an OAuth app of the kind "desktop", by which a
	// person logs in. ClientFile is the file with both that Google's console gives.
	ClientID, ClientSecret, ClientFile string
	// Anonymous says to use no login, though there may be one.
	Anonymous bool

	// Base is what stands in for all hosts of Google: a proxy, a test server. Credentials that
	// nobody configured for it are then not looked for. nil: Google's own.
	Base *url.URL
}

// A Login sends requests with an access token, if there is a login. It is for many
// goroutines at once.
//
// The login is, in this order, the remote's secret, the file of Options.Credentials, the file
// of GOOGLE_APPLICATION_CREDENTIALS, that of gcloud, the metadata server.
type Login struct {
	opts   Options
	remote string
	http   *http.Client
	env    backends.Env

	busy    chan struct{} // a lock that a caller can stop waiting for; guards the fields below
	login   *credential   // nil: not looked for yet, or refused
	current *oauth2.Token
	asked   time.Time // when a fresh secret was last asked for
}

// renewEvery is how often a refused login is asked for anew.
const renewEvery = time.Minute

// New returns the Login of a remote. It sends no request and reads no file.
//
// Errors: fs.ErrInvalid for settings that contradict each other.
func New(env backends.Env, opts Options) (*Login, error) {
	if opts.Anonymous && (opts.Credentials != "" || env.Secret != nil) {
		return nil, fmt.Errorf("%w: remote %s: anonymous = true, and a login besides", fs.ErrInvalid, env.Remote)
	}
	if opts.ClientFile != "" && opts.ClientID != "" {
		return nil, fmt.Errorf("%w: remote %s: client_file and client_id exclude each other", fs.ErrInvalid, env.Remote)
	}
	return &Login{opts: opts, remote: env.Remote, http: env.HTTP, env: env, busy: make(chan struct{}, 1)}, nil
}

// Do is httpx.Do with the login. A token that is refused is renewed, and the request sent
// once more: a body must be one that req.GetBody can give again, or nil. Refusals are read
// by Refusal.
func (l *Login) Do(req *http.Request, ok ...int) (*http.Response, error) {
	token, err := l.token(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := l.send(req, token, ok)
	if token == "" || !errors.Is(err, backends.ErrUnauthorized) {
		return resp, err
	}
	if token, err = l.renew(req.Context(), token, err); err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, fmt.Errorf("%w: the login has expired during an upload", backends.ErrUnavailable)
		}
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return l.send(again, token, ok)
}

func (l *Login) send(req *http.Request, token string, ok []int) (*http.Response, error) {
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := httpx.Answer(l.http, req)
	if err != nil {
		return nil, err
	}
	for _, status := range ok {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	if err := Refusal(resp); err != nil {
		if token == "" && errors.Is(err, backends.ErrUnauthorized) {
			err = fmt.Errorf("%w (there is no login: %s)", err, l.advice())
		}
		return nil, err
	}
	return resp, nil
}

func (l *Login) advice() string {
	return fmt.Sprintf("set credentials, or run \"gcloud auth application-default login\" or \"sreg login %s\"", l.remote)
}

// Known reports whether there is a login.
//
// Errors: those of Do.
func (l *Login) Known(ctx context.Context) (bool, error) {
	if err := l.lock(ctx); err != nil {
		return false, err
	}
	defer l.unlock()
	err := l.find(ctx, false)
	return err == nil && l.login.token != nil, err
}

// A Signer signs what others can then do in the name of a service account: signed links.
type Signer struct {
	Email string
	Sign  func(text []byte) ([]byte, error) // RSA with SHA-256 (PKCS #1 v1.5)
}

// Signer returns the key of the login.
//
// Errors: errors.ErrUnsupported if it is not that of a service account; those of Do.
func (l *Login) Signer(ctx context.Context) (Signer, error) {
	if err := l.lock(ctx); err != nil {
		return Signer{}, err
	}
	defer l.unlock()
	if err := l.find(ctx, false); err != nil {
		return Signer{}, err
	}
	if l.login.sign == nil {
		return Signer{}, fmt.Errorf("%w: only the key of a service account can sign", errors.ErrUnsupported)
	}
	return Signer{l.login.email, l.login.sign}, nil
}

func (l *Login) lock(ctx context.Context) error {
	select {
	case l.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Login) unlock() { <-l.busy }

// token returns a token that, as far as we know, is good; "" if there is no login.
func (l *Login) token(ctx context.Context) (string, error) {
	if l.opts.Anonymous {
		return "", nil
	}
	if err := l.lock(ctx); err != nil {
		return "", err
	}
	defer l.unlock()
	if l.current.Valid() {
		return l.current.AccessToken, nil
	}
	if err := l.find(ctx, false); err != nil {
		return "", err
	}
	return l.refresh(ctx)
}

// renew returns another token than refused, or the refusal.
func (l *Login) renew(ctx context.Context, refused string, refusal error) (string, error) {
	if err := l.lock(ctx); err != nil {
		return "", err
	}
	defer l.unlock()
	if l.current.Valid() && l.current.AccessToken != refused {
		return l.current.AccessToken, nil // another request was faster
	}
	l.current = nil
	if l.login != nil && !l.login.fixed {
		token, err := l.refresh(ctx)
		if err == nil && token != refused || err != nil && !errors.Is(err, backends.ErrUnauthorized) {
			return token, err
		}
	}
	// First what is stored may have changed; only then is something new worth it.
	for _, fresh := range []bool{false, true} {
		if fresh {
			// A login that is simply wrong must not become a storm of logins.
			if !l.asked.IsZero() && time.Since(l.asked) < renewEvery {
				break
			}
			l.asked = time.Now()
		}
		l.login, l.current = nil, nil
		if err := l.find(ctx, fresh); err != nil {
			return "", err
		}
		token, err := l.refresh(ctx)
		if err == nil && token != refused && token != "" {
			return token, nil
		}
		if err != nil && !errors.Is(err, backends.ErrUnauthorized) {
			return "", err
		}
	}
	l.current = nil
	return "", refusal
}

// refresh makes current out of login.
func (l *Login) refresh(ctx context.Context) (string, error) {
	if l.login.token == nil {
		return "", nil
	}
	token, err := l.login.token(ctx)
	if err != nil {
		l.login = nil
		return "", l.refused(ctx, err)
	}
	if !printable(token.AccessToken) {
		return "", fmt.Errorf("%w: the new access token is none", backends.ErrBadAnswer)
	}
	l.current = token
	return token.AccessToken, nil
}

// refused says what an error of the token service means.
func (l *Login) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return err
	}
	status := e.Response.StatusCode
	text := backends.Redact(strings.TrimSpace(e.ErrorCode + " " + e.ErrorDescription))
	switch {
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: Google's login", backends.ErrRateLimited)
	case status/100 == 5 || status == http.StatusRequestTimeout:
		return fmt.Errorf("%w: Google's login: HTTP %d", backends.ErrUnavailable, status)
	case status/100 == 4:
		return fmt.Errorf("%w: Google refused the login (%q): it has expired or was revoked; %s", backends.ErrUnauthorized, text, l.advice())
	}
	return fmt.Errorf("%w: Google's login: HTTP %d", backends.ErrBadAnswer, status)
}

// printable reports whether s can be sent in a header.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
