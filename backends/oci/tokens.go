// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
)

// tokens is a cache of logins that can be emptied.
type tokens struct {
	mu      sync.Mutex // guards the fields below
	cache   auth.Cache
	used    bool // something may be in the cache
	age     int  // counts how often it was emptied
	refused time.Time
}

func newTokens() *tokens { return &tokens{cache: auth.NewCache()} }

func (t *tokens) now() auth.Cache {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cache
}

// GetScheme implements auth.Cache.
func (t *tokens) GetScheme(ctx context.Context, registry string) (auth.Scheme, error) {
	return t.now().GetScheme(ctx, registry)
}

// GetToken implements auth.Cache.
func (t *tokens) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	return t.now().GetToken(ctx, registry, scheme, key)
}

// Set implements auth.Cache.
func (t *tokens) Set(
	ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error),
) (string, error) {
	cache := t.now()
	token, err := cache.Set(ctx, registry, scheme, key, fetch)
	if err == nil {
		t.mu.Lock()
		t.used = true
		t.mu.Unlock()
	}
	return token, err
}

// generation is to be read before a request that drop may be called after.
func (t *tokens) generation() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.age
}

// drop forgets the logins of a generation, and reports whether there were any:
// then the request may be made again, from its beginning.
func (t *tokens) drop(generation int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.age != generation {
		return true // somebody else has seen to it
	}
	if !t.used {
		return false
	}
	t.cache, t.used = auth.NewCache(), false
	t.age++
	return true
}

// spare reports whether a refusal may be taken for that of an old token: once a
// minute, since it is mostly just that.
func (t *tokens) spare() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.refused.IsZero() && time.Since(t.refused) < renewEvery {
		return false
	}
	t.refused = time.Now()
	return true
}

// renew reports whether to make a request again that ended with err: with
// another secret, or, where the service's answer to an old token leads nowhere,
// as one that never had a token. generation is that of the tokens before it.
func (c *client) renew(err error, generation int) bool {
	if errors.Is(err, errForeignLogin) {
		return false
	}
	unauthorized := errors.Is(err, backends.ErrUnauthorized)
	restarted := false
	if c.preset.restart != nil && errors.Is(err, c.preset.restart) && (unauthorized || c.tokens.spare()) {
		restarted = c.tokens.drop(generation)
	}
	renewed := unauthorized && c.login.renew()
	return restarted || renewed
}

// triedAt says, for an error of another host, whose login was refused.
func (l *login) triedAt(host string) string {
	if l.secret != nil {
		return fmt.Sprintf("%s refused the configured login of user %q", host, l.user)
	}
	return fmt.Sprintf("%s refused, or wants, the login for %s", host, l.host)
}
