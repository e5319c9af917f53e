// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
)

// maxTokens is how many tokens are kept; one more, and all are forgotten. A registry
// gives one for each repository, of some KiB, and may have a million of them.
const maxTokens = 1024

// tokens hands out a cache of logins that can be replaced by an empty one. The zero
// value is ready.
type tokens struct {
	mu      sync.Mutex // guards the fields below
	cache   *tokenCache
	dropped time.Time
}

// A tokenCache is what one request after the other adds its login to. A request
// goes on with the one that it began with: what it finds out about an old login
// must not get to those who begin anew.
type tokenCache struct {
	auth.Cache
	kept atomic.Int64 // what was put into it
}

// Set implements auth.Cache.
func (c *tokenCache) Set(
	ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error),
) (string, error) {
	token, err := c.Cache.Set(ctx, registry, scheme, key, fetch)
	if err == nil {
		c.kept.Add(1)
	}
	return token, err
}

// now returns the cache for a request.
func (t *tokens) now() *tokenCache {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cache == nil || t.cache.kept.Load() >= maxTokens {
		t.cache = &tokenCache{Cache: auth.NewCache()}
	}
	return t.cache
}

// drop replaces the cache that a request had, and reports whether there was
// anything in it: then the request may be made again, from its beginning. What is
// rare does so at most once in a while: a refusal that is mostly not for the
// age of a login.
func (t *tokens) drop(had *tokenCache, rare bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.cache != had:
		return true // somebody else has seen to it
	case had.kept.Load() == 0, rare && !t.dropped.IsZero() && time.Since(t.dropped) < renewEvery:
		return false
	}
	t.cache, t.dropped = nil, time.Now()
	return true
}

// renew reports whether to make a request again that ended with err: with
// another secret, or, where the service's answer to an old token leads nowhere,
// as one that never had a token. had is the cache that it was made with.
func (c *client) renew(err error, had *tokenCache) bool {
	if errors.Is(err, fs.ErrPermission) {
		c.login.forget()
	}
	if errors.Is(err, errForeignLogin) {
		return false
	}
	unauthorized := errors.Is(err, backends.ErrUnauthorized)
	again := c.preset.restart != nil && errors.Is(err, c.preset.restart) && c.tokens.drop(had, !unauthorized)
	if unauthorized && c.login.renew() {
		again = true
	}
	return again
}

// triedAt says, for an error of another host, whose login was refused.
func (l *login) triedAt(host string) string {
	if l.secret != nil {
		return fmt.Sprintf("%s refused the configured login of user %q", host, l.user)
	}
	return fmt.Sprintf("%s refused, or wants, the login for %s", host, l.host)
}
