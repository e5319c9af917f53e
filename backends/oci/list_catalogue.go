// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// catalogue returns the repositories at and below a path, and maybe others: from
// the registry's own catalogue, or from the API of the service. There a name that ends
// in a slash is that of a namespace.
func (c *client) catalogue(ctx context.Context, path string) ([]string, error) {
	if c.lister == nil {
		return c.catalog.of("").get(ctx, c.repositories)
	}
	named := c.namespaces(ctx, path)
	if path == "" && !c.preset.whole {
		if len(named) == 0 {
			return nil, fmt.Errorf("%w: %s does not tell what all it has: what is named can be opened, and namespaces = […] lists some",
				errors.ErrUnsupported, c.base.Host)
		}
		return named, nil
	}
	scope := c.scope(path)
	all, err := c.catalog.of(scope).get(ctx, func(ctx context.Context) ([]string, error) { return c.listed(ctx, scope) })
	if err != nil && (len(named) == 0 || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	return slices.Concat(named, all), nil
}

// namespaces returns those that are known to lie below path without asking: the
// configured ones and that of the user.
func (c *client) namespaces(ctx context.Context, path string) []string {
	known := c.config.Namespaces
	if owner := c.preset.owner; owner != nil && path == "" {
		if own := owner(c.login.owner(ctx)); checkRepository(own) == nil {
			known = append(slices.Clone(known), own)
		}
	}
	var all []string
	for _, ns := range known {
		if path == "" || strings.HasPrefix(ns, path+"/") {
			all = append(all, ns+"/")
		}
	}
	return all
}

// isNamespace reports whether path is a namespace that the remote is to show: it is
// there, also if nothing is in it yet.
func (c *client) isNamespace(ctx context.Context, path string) bool {
	return slices.Contains(c.namespaces(ctx, ""), path+"/")
}

// scope returns the namespace to list for what is at path: the longest that is
// configured, else its first part.
func (c *client) scope(path string) string {
	first, _, _ := strings.Cut(path, "/")
	if !c.preset.deep {
		return first
	}
	longest := first
	for _, ns := range append([]string{c.namespace}, c.config.Namespaces...) {
		if (path == ns || strings.HasPrefix(path, ns+"/")) && len(ns) > len(longest) {
			longest = ns
		}
	}
	return longest
}

// listed reads the repositories in a namespace from the service's API.
func (c *client) listed(ctx context.Context, scope string) (all []string, err error) {
	for _, start := range c.lister.start(scope) {
		if all, err = c.listedFrom(ctx, scope, start); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if all == nil && errors.Is(err, fs.ErrPermission) && c.login.secret == nil {
		return nil, c.untold(ctx, err)
	}
	return all, err
}

// listedFrom reads the pages from target on. Of each only the names are kept. What
// it returns is not nil once a page was read.
func (c *client) listedFrom(ctx context.Context, scope, target string) ([]string, error) {
	var all []string
	prefix := scope + "/"
	if scope == "" {
		prefix = ""
	}
	seen := map[string]bool{}
	for range maxPages {
		seen[target] = true
		repos, next, err := c.lister.page(ctx, scope, target)
		switch {
		case err != nil && all == nil:
			return nil, err
		case err != nil:
			return all, backends.BrokenOff(err)
		case all == nil:
			all = []string{}
		}
		for _, repo := range repos {
			if (repo == scope || strings.HasPrefix(repo, prefix)) && checkRepository(repo) == nil {
				all = append(all, repo)
			}
		}
		switch {
		case len(all) > maxNames:
			return nil, errEndless
		case next == "":
			return all, nil
		case seen[next]:
			return nil, fmt.Errorf("%w: the listing goes in a circle at %q", backends.ErrBadAnswer, next)
		}
		target = next
	}
	return nil, errEndless
}

const (
	catalogLife = 5 * time.Second // of what a catalogue told
	maxCatalogs = 64              // namespaces that are remembered at a time
)

// catalogs are the catalogues of several namespaces. The zero value is empty.
type catalogs struct {
	mu  sync.Mutex // guards the field below
	all map[string]*catalog
}

func (c *catalogs) of(namespace string) *catalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[namespace] == nil {
		if c.all == nil || len(c.all) >= maxCatalogs {
			c.all = map[string]*catalog{}
		}
		c.all[namespace] = new(catalog)
	}
	return c.all[namespace]
}

// forget makes the next get of each read.
func (c *catalogs) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		one.forget()
	}
}

// A catalog is a list of repositories that is good for a moment, so that a walk
// of the tree does not ask for it in every directory. The zero value is empty.
type catalog struct {
	once backends.Locks // for one reader at a time: the others wait for what it finds

	mu    sync.Mutex // guards the fields below
	all   []string
	err   error
	until time.Time
	age   int // counts the calls of forget
}

// get returns the list, which must not be changed, read by read if it is old.
func (c *catalog) get(ctx context.Context, read func(context.Context) ([]string, error)) ([]string, error) {
	unlock, err := c.once.Lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	c.mu.Lock()
	all, err, until, age := c.all, c.err, c.until, c.age
	c.mu.Unlock()
	if time.Now().Before(until) {
		return all, err
	}
	all, err = read(ctx)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age == age { // else it may lack what was pushed meanwhile
		c.all, c.err, c.until = all, err, time.Now().Add(catalogLife)
		time.AfterFunc(catalogLife, c.drop)
	}
	return all, err
}

// drop frees a list that is too old; it may be of a million names.
func (c *catalog) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !time.Now().Before(c.until) {
		c.all, c.err = nil, nil
	}
}

// forget makes the next get read.
func (c *catalog) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
	c.age++
}
