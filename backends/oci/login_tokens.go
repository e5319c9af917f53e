// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
)

// maxTokens is how many tokens are kept; one more, and all are forgotten. A registry
// gives one for each repository, of some KiB, and may have a million of them.
const maxTokens = 1024

// tokens hands out a cache of logins for each scope, which can be replaced by an empty
// one. The zero value is ready.
type tokens struct {
	mu      sync.Mutex // guards the fields below
	caches  map[string]*tokenCache
	dropped map[string]time.Time
}

// A tokenCache is what one request after the other adds its login to. A request
// goes on with the one that it began with: what it finds out about an old login
// must not get to those who begin anew.
type tokenCache struct {
	auth.Cache
	scope string       // of the login
	kept  atomic.Int64 // what was put into it

	mu     sync.Mutex // guards the field below
	worked map[string]bool
}

// works notes that the login in c was good for a repository ("" for what is in none).
func (c *tokenCache) works(repo string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.worked == nil || len(c.worked) >= maxTokens {
		c.worked = map[string]bool{}
	}
	c.worked[repo] = true
}

func (c *tokenCache) hasWorked(repo string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worked[repo]
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
func (t *tokens) now(scope string) *tokenCache {
	t.mu.Lock()
	defer t.mu.Unlock()
	cache := t.caches[scope]
	if cache == nil || cache.kept.Load() >= maxTokens {
		if t.caches == nil {
			t.caches, t.dropped = map[string]*tokenCache{}, map[string]time.Time{}
		}
		cache = &tokenCache{Cache: auth.NewCache(), scope: scope}
		t.caches[scope] = cache
	}
	return cache
}

// drop replaces the cache that a request had, and reports whether there was
// anything in it: then the request may be made again, from its beginning. What is
// rare does so at most once in a while: a refusal that is mostly not for the
// age of a login.
func (t *tokens) drop(had *tokenCache, rare bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, ok := t.dropped[had.scope]
	switch {
	case t.caches[had.scope] != had:
		return true // another request has renewed it
	case had.kept.Load() == 0, rare && ok && time.Since(before) < renewEvery:
		return false
	}
	delete(t.caches, had.scope)
	t.dropped[had.scope] = time.Now()
	return true
}

// renew reports whether to make a request again that ended with err: with
// another secret, or as one that never had a token. had is the cache that it was made
// with.
//
// A registry that finds a login too old should answer 401 and say how to get another
// one. Some answer 403, or, as for anything that one may not see, 404. So a refusal
// where the same login was good before is taken for its age; other ones, and names
// that are not there, only once in a while.
func (c *client) renew(err error, had *tokenCache, req *http.Request) bool {
	refused, missing := errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist)
	if !refused && !missing || errors.Is(err, errForeignLogin) {
		return false
	}
	c.login.forget()
	// A blob is read after its manifest was: that it is not there is odd.
	blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
	aged := had.hasWorked(repositoryIn(req.URL.Path)) && (refused || blob)
	again := c.tokens.drop(had, !aged)
	sure := errors.Is(err, backends.ErrUnauthorized)
	if (sure || again || aged) && c.login.renew(sure) {
		again = true
	}
	return again
}

// repositoryIn returns the repository that a request's path is for, "" if it is for none.
func repositoryIn(path string) string {
	path, end := strings.TrimPrefix(path, "/v2/"), 0
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/"} {
		end = max(end, strings.LastIndex(path, kind))
	}
	return path[:end]
}

// triedAt says, for an error of another host, whose login was refused.
func (l *login) triedAt(host string) string {
	if l.secret != nil {
		return fmt.Sprintf("%s refused the configured login of user %q", host, l.user)
	}
	return fmt.Sprintf("%s refused, or wants, the login for %s", host, l.host)
}
