// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ncw/swift/v2"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// auths are the values of Config.Auth: our names first, then those of the sregistry client,
// which has TempAuth for all other words. The path is what URL ends in.
var auths = []struct {
	names   string
	version int // ncw/swift's; 0: there is a token already
	path    string
}{
	{"v3 keystonev3", 3, "/v3"},
	{"v2 keystonev2", 2, "/v2.0"},
	{"v1 tempauth legacy", 1, "/auth/v1.0"},
	{"preauth", 0, ""},
}

const (
	refusedFor = time.Minute     // a login that was refused is not tried again: accounts are locked for that
	patience   = 5 * time.Minute // more than the transport has
)

// A session is a login that has been made.
type session struct {
	token   string // "" for what everybody may see
	storage *url.URL
	expires time.Time // zero: not told
}

func (s *session) fresh() bool {
	return s != nil && (s.expires.IsZero() || time.Until(s.expires) > time.Minute)
}

// A login logs in.
type login struct {
	cfg     Config
	version int
	remote  string
	home    *url.URL // where to log in
	storage *url.URL // Config.StorageURL, or nil
	user    string
	secret  backends.SecretFunc
	http    *http.Client

	busy    chan struct{} // a lock that a caller can stop waiting for; guards the fields below
	now     *session
	refused struct { // the last secret that was
		secret string
		at     time.Time
		err    error
	}
	renewal httpx.Renewal
}

func newLogin(cfg Config, env backends.Env) (*login, error) {
	l := &login{cfg: cfg, remote: env.Remote, user: env.User, secret: env.Secret, http: env.HTTP, busy: make(chan struct{}, 1)}
	fail := func(format string, args ...any) (*login, error) {
		return nil, fmt.Errorf("%w: remote %s: %s", fs.ErrInvalid, env.Remote, fmt.Sprintf(format, args...))
	}
	for _, address := range []struct {
		text string
		to   **url.URL
	}{{cfg.URL, &l.home}, {cfg.StorageURL, &l.storage}} {
		if address.text == "" {
			continue
		}
		u, err := httpx.Address(address.text)
		if err != nil {
			return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
		}
		*address.to = u
	}
	if l.home == nil {
		l.home = l.storage
	}
	if l.home == nil {
		return fail("url is required: where to log in")
	}
	word := cfg.Auth
	if word == "" {
		word = guess(l.home.Path, cfg.URL == "")
	}
	if word == "keystonev3" && cfg.Project == "" && cfg.ProjectID == "" {
		l.cfg.Project = "Default" // which is the only one that the sregistry client has
	}
	for _, a := range auths {
		for name := range strings.FieldsSeq(a.names) {
			if name != word {
				continue
			}
			switch l.version = a.version; {
			case a.version == 0 && l.storage == nil:
				l.storage = l.home
			case a.version != 0 && !versioned(l.home.Path):
				l.home.Path = strings.TrimSuffix(l.home.Path, "/auth") + a.path
			}
			return l, nil
		}
	}
	return fail("auth %q (want v1, v2, v3 or preauth)", cfg.Auth)
}

// versioned reports whether a path tells the version of the login by itself.
func versioned(path string) bool {
	return strings.Contains(path, "/v1") || strings.Contains(path, "/v2") || strings.Contains(path, "/v3")
}

// guess says what the path of an address logs in by.
func guess(path string, storage bool) string {
	switch {
	case storage:
		return "preauth"
	case strings.Contains(path, "/v2"):
		return "v2"
	case strings.Contains(path, "/v1"), strings.Contains(path, "/auth"):
		return "v1"
	}
	return "v3"
}

func (l *login) lock(ctx context.Context) error {
	select {
	case l.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// get returns a session that, as far as we know, is good.
func (l *login) get(ctx context.Context) (*session, error) {
	if err := l.lock(ctx); err != nil {
		return nil, err
	}
	defer func() { <-l.busy }()
	if l.now.fresh() {
		return l.now, nil
	}
	return l.start(ctx, false)
}

// renew returns another session than had, if err says that this one is too old.
func (l *login) renew(ctx context.Context, had *session, err error) (*session, bool) {
	if had.token == "" || !errors.Is(err, backends.ErrUnauthorized) || l.lock(ctx) != nil {
		return nil, false
	}
	defer func() { <-l.busy }()
	if l.now != had && l.now.fresh() {
		return l.now, true // another request was faster
	}
	if l.version == 0 {
		token, ok := l.renewal.Again(ctx, l.secret, had.token, err)
		if ok {
			l.now = &session{token: token, storage: had.storage}
		}
		return l.now, ok
	}
	l.now = nil
	next, err := l.start(ctx, false)
	return next, err == nil
}

// start logs in. The lock is held.
func (l *login) start(ctx context.Context, again bool) (*session, error) {
	secret, err := l.ask(ctx, again)
	if err != nil {
		return nil, err
	}
	if l.version == 0 {
		l.now = &session{token: secret, storage: l.storage}
		return l.now, nil
	}
	if secret == l.refused.secret && time.Since(l.refused.at) < refusedFor {
		if !again {
			return l.start(ctx, true) // a command may have another one
		}
		return nil, l.refused.err
	}
	l.now, err = l.request(ctx, secret)
	if errors.Is(err, backends.ErrUnauthorized) {
		l.refused.secret, l.refused.at, l.refused.err = secret, time.Now(), err
		if !again {
			return l.start(ctx, true)
		}
	}
	return l.now, err
}

func (l *login) ask(ctx context.Context, fresh bool) (string, error) {
	if l.secret == nil {
		if l.version == 0 {
			return "", nil
		}
		return "", fmt.Errorf("%w: remote %s has no password (set token_file, token_env or token_command, or run \"sreg login %s\")",
			backends.ErrUnauthorized, l.remote, l.remote)
	}
	return l.secret(ctx, fresh)
}

// request makes a session. The answer is trusted with the address of the service, as far as
// httpx.Target goes: that is what it is for.
func (l *login) request(ctx context.Context, secret string) (*session, error) {
	wire := &loginWire{http: l.http, again: l.version == 2}
	conn := swift.Connection{
		AuthUrl: l.home.String(), AuthVersion: l.version, UserName: l.user, ApiKey: secret, Transport: wire, ConnectTimeout: patience,
		Tenant: l.cfg.Project, TenantId: l.cfg.ProjectID, Region: l.cfg.Region,
		Domain: l.cfg.Domain, DomainId: l.cfg.DomainID, TenantDomain: l.cfg.ProjectDomain, TenantDomainId: l.cfg.ProjectDomainID,
	}
	if conn.Domain == "" && conn.DomainId == "" {
		conn.Domain = "Default"
	}
	if l.cfg.Credential != "" {
		conn.ApplicationCredentialId, conn.ApplicationCredentialSecret, conn.ApiKey, conn.UserName = l.cfg.Credential, secret, "", ""
	}
	if l.storage != nil {
		conn.Region = "" // the address says which
	}
	err := conn.Authenticate(backends.WithLogin(ctx))
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(wire.err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: nothing to log in at: %v (are url and auth right?)", backends.ErrBadAnswer, wire.err)
	case wire.err != nil:
		return nil, wire.err
	case err != nil && (conn.AuthToken == "" || l.storage == nil):
		return nil, fmt.Errorf("%w: the login was answered without a token, or without the address of an object store: %v", backends.ErrBadAnswer, err)
	}
	s := &session{token: conn.AuthToken, storage: l.storage, expires: conn.Expires}
	if s.storage != nil {
		return s, nil
	}
	if s.storage, err = httpx.Target(l.home, conn.StorageUrl); err != nil {
		return nil, err
	}
	s.storage.Path, s.storage.RawPath, s.storage.RawQuery, s.storage.Fragment = strings.TrimRight(s.storage.Path, "/"), "", "", ""
	return s, nil
}

// A loginWire is the transport below ncw/swift for one login: with limits, and with our errors.
type loginWire struct {
	http  *http.Client
	again bool // a refusal has the library try another form of the request
	err   error
}

// RoundTrip implements http.RoundTripper.
func (w *loginWire) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Del("User-Agent") // ours, and not the library's
	resp, err := httpx.Do(w.http, req)
	w.err = err
	if errors.Is(err, backends.ErrUnauthorized) && w.again {
		w.again = false
		return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := httpx.ReadAll(resp.Body)
	resp.Body.Close()
	if w.err = err; err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return resp, nil
}
