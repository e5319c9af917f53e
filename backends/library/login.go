// SPDX-License-Identifier: Apache-2.0

package library

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

// A login has the token: the configured one, or else that which
// "singularity remote login" keeps for this library. It is read when it is first
// needed, and again when it was refused.
type login struct {
	remote string // of ours, for what to do
	secret backends.SecretFunc
	files  remoteFiles
	place  endpoint

	renewal httpx.Renewal

	mu    sync.Mutex // guards the fields below
	token string
	file  string // where it is from; "" for the configured one
}

// get returns the token, "" if there is none. Errors: those of a SecretFunc.
func (l *login) get(ctx context.Context) (string, error) {
	l.mu.Lock()
	token := l.token
	l.mu.Unlock()
	if token != "" {
		return token, nil
	}
	token, file, err := l.read(ctx, false)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	l.token, l.file = token, file
	l.mu.Unlock()
	return token, nil
}

// another is httpx.Renewal.Again for the token, which is kept.
func (l *login) another(ctx context.Context, had string, err error) (string, bool) {
	file := ""
	token, ok := l.renewal.Again(ctx, func(ctx context.Context, fresh bool) (token string, err error) {
		token, file, err = l.read(ctx, fresh)
		return token, err
	}, had, err)
	if ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.token, l.file = token, file
	}
	return token, ok
}

func (l *login) read(ctx context.Context, fresh bool) (token, file string, err error) {
	if l.secret == nil {
		token, file = l.files.token(l.place.remote)
		return token, file, nil
	}
	token, err = l.secret(ctx, fresh)
	if err == nil && token == "" {
		err = fmt.Errorf("%w: the token is empty (run \"sreg login %s\")", backends.ErrUnauthorized, l.remote)
	}
	return token, "", err
}

// refused is the error for a token that the library does not take.
func (l *login) refused() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != "" {
		return fmt.Errorf("%w: the library refuses the token in %s (run \"singularity remote login\", or \"sreg login %s\")",
			backends.ErrUnauthorized, l.file, l.remote)
	}
	return fmt.Errorf("%w: the library refuses the token: it has expired, or is none (run \"sreg login %s\")", backends.ErrUnauthorized, l.remote)
}

// missing is the error for what nobody may do without a token.
func (l *login) missing() error {
	return fmt.Errorf("%w: this needs a token of the library (run \"sreg login %s\")", backends.ErrUnauthorized, l.remote)
}

// CheckLogin asks the library for the entities of the token's user, and so whether
// it takes the token.
//
// Errors: those of backends.Backend.Stat.
func (c *client) CheckLogin(ctx context.Context) error {
	token, err := c.login.get(ctx)
	if err != nil || token == "" {
		return err // what is public needs none
	}
	_, err = c.ownEntities(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		return nil // there is no such question
	}
	return err
}

// Knock returns a request that every library answers.
func (c *client) Knock() (method, address string) {
	return http.MethodGet, c.address.configured.address.String() + versionPath
}

// Address implements backends.Addressed, as far as the configuration says it.
func (c *client) Address() string { return c.address.configured.address.String() }
