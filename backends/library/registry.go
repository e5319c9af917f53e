// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	redirectPath = "/v1/oci-redirect"
	// tokenLife is how long a token for the registry is used before another is
	// asked for. One that ends sooner is refused, and then another is asked for.
	tokenLife = 5 * time.Minute
	// noneLife is how long a library that said that it has no registry is not asked
	// again.
	noneLife = 10 * time.Minute
	// maxBranches is how many containers' registries are kept open.
	maxRegistries = 256
)

// What a token for the registry is to allow, as clients of Sylabs say it.
const (
	pull = "pull"
	push = "pull,push"
)

// A redirect is where an OCI registry has a container.
type redirect struct {
	Token string `json:"token"`
	URL   string `json:"url"`
	Name  string `json:"name"`
}

// A registry is the OCI registry behind the library, for one container. Without a Backend
// it says that there is none, until then.
type registry struct {
	backends.Backend // the registry
	ref              backends.Ref

	mu    sync.Mutex // guards the fields below
	at    redirect
	until time.Time
}

// named returns what the registry calls a tag of the container.
func (b *registry) named(tag string) backends.Ref {
	ref := b.ref
	ref.Tag = tag
	return ref
}

// registries are those in use. The zero value, with open, has none.
type registries struct {
	open backends.Opener // of the backend for OCI registries
	once backends.Locks

	all  bounded.Map[string, *registry]
	none atomic.Int64 // until when the library is taken to have none, as time.UnixNano has it
}

// get returns what is known of key; nil with known if there is no registry.
func (b *registries) get(key string) (at *registry, known bool) {
	at, known = b.all.Get(key)
	switch {
	case known && at.Backend != nil:
		return at, true
	case known:
		return nil, time.Now().Before(at.until)
	}
	return nil, time.Now().UnixNano() < b.none.Load()
}

// registry returns the OCI registry that has n's container; nil if the library has none
// for it. exists says that the library has the image, or is to get it.
func (c *client) registry(ctx context.Context, n name, access string, exists bool) (*registry, error) {
	key := n.path() + " " + access
	if at, known := c.registries.get(key); known {
		return at, nil
	}
	unlock, err := c.registries.once.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if at, known := c.registries.get(key); known {
		return at, nil
	}
	to, err := c.redirect(ctx, n, access)
	if !exists && err != nil && !errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, backends.ErrRateLimited) && ctx.Err() == nil {
		return nil, nil // that says nothing of the others, nor of this one once it exists
	}
	if c.hasNoRegistry(access, err) {
		life := noneLife
		if errors.Is(err, backends.ErrBadAnswer) { // a proxy's page, perhaps
			life = guessLife
		}
		c.registries.all.Put(key, &registry{until: time.Now().Add(life)})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	at, err := c.openRegistry(ctx, n, access, to)
	if err != nil {
		return nil, err
	}
	c.registries.all.Put(key, at)
	if at.Backend == nil {
		return nil, nil
	}
	return at, nil
}

// hasNoRegistry reports whether err says that there is no registry. That it is the whole
// library that has none can be told only where the image is known to exist.
func (c *client) hasNoRegistry(access string, err error) bool {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
		if access == pull {
			c.registries.none.Store(time.Now().Add(noneLife).UnixNano())
		}
		return true
	case errors.Is(err, backends.ErrUnauthorized):
		return false
	}
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, backends.ErrBadAnswer)
}

// redirect asks for the registry that has n's container, and for a token to it.
func (c *client) redirect(ctx context.Context, n name, access string) (redirect, error) {
	query := url.Values{"namespace": {n.path()}, "mapped": {"1"}, "accessTypes": {access}}
	var to redirect
	err := c.loggedIn(ctx, func(base *url.URL, token string) error {
		req, err := httpx.NewRequest(ctx, http.MethodGet, base.String()+redirectPath+"?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		authorize(req, token)
		return c.object(req, &to)
	})
	if err == nil && to.URL == "" {
		err = fmt.Errorf("%w: a redirect without an address", backends.ErrBadAnswer)
	}
	if to.Name == "" {
		to.Name = n.path()
	}
	return to, err
}

// openRegistry opens the registry. It leaves the backend out if it cannot be used.
func (c *client) openRegistry(ctx context.Context, n name, access string, to redirect) (*registry, error) {
	base, err := c.base(ctx)
	if err != nil {
		return nil, err
	}
	u, err := httpx.Target(base, to.URL)
	if err != nil {
		return nil, err
	}
	at := &registry{at: to, until: time.Now().Add(tokenLife)}
	slash := strings.LastIndexByte(to.Name, '/')
	at.ref = backends.Ref{Collection: to.Name[:max(slash, 0)], Name: to.Name[slash+1:]}
	// No credentials of other tools: those are for remotes of the registry itself.
	env := backends.Env{
		Remote: c.login.remote, Type: "oci", HTTP: c.awayClient(), Arch: c.arch, Log: c.log,
		Config: map[string]any{"url": u.String(), "layout": "library"}, Cache: c.cache,
	}
	if c.show != "" {
		env.Config["show"] = c.show
	}
	if to.Token != "" {
		env.Config["auth"] = "bearer"
		env.Secret = func(ctx context.Context, fresh bool) (string, error) { return c.branchToken(ctx, n, access, at, fresh) }
	}
	at.Backend, err = c.registries.open(ctx, env)
	if checker, ok := at.Backend.(backends.NameChecker); err == nil && ok {
		err = checker.CheckName(at.named(backends.DefaultTag))
	}
	if err != nil {
		c.log.Warn("the registry behind the library cannot be used", "url", backends.Origin(u), "err", err)
		return &registry{until: time.Now().Add(noneLife)}, nil
	}
	return at, nil
}

// awayClient is the client for what the library sends us to.
func (c *client) awayClient() *http.Client {
	hc := *c.http
	hc.Transport = awayTransport{c: c, next: c.http.Transport}
	return &hc
}

type awayTransport struct {
	c    *client
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t awayTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	return next.RoundTrip(t.c.sentAway(req))
}

// branchToken returns the token for the registry: another one if the last was
// refused, or has been used for long.
func (c *client) branchToken(ctx context.Context, n name, access string, at *registry, fresh bool) (string, error) {
	at.mu.Lock()
	was, until := at.at, at.until
	at.mu.Unlock()
	if !fresh && time.Now().Before(until) {
		return was.Token, nil
	}
	to, err := c.redirect(ctx, n, access)
	if err != nil {
		return "", err
	}
	if to.URL != was.URL || to.Name != was.Name {
		// The token is for another registry than the one that wants it.
		c.registries.all.Delete(n.path() + " " + access)
		return "", fmt.Errorf("%w: the library has moved the image to another registry", backends.ErrUnavailable)
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	at.at, at.until = to, time.Now().Add(tokenLife)
	return to.Token, nil
}
