// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

const (
	pageSize    = 1000
	tagRequests = 16 // at once
	catalogLife = 5 * time.Second
)

// List tells the tags of the repositories that lie directly in collection, and
// the collections below it, from the registry's catalogue. Whether a tag is a
// SIF is not asked for: one that Stat has found to be something else is left
// out from then on.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		all, err := c.catalog.get(ctx, c.repositories)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		children, images := below(all, c.prefix(collection))
		if collection != "" && len(children)+len(images) == 0 {
			yield(backends.Entry{}, fmt.Errorf("%w: no repository is named %s…", fs.ErrNotExist, c.prefix(collection)))
			return
		}
		for _, child := range children {
			if collection != "" {
				child = collection + "/" + child
			}
			if !yield(backends.Entry{Collection: child}, nil) {
				return
			}
		}
		for names := range slices.Chunk(images, tagRequests) {
			tags, err := c.tagsOf(ctx, collection, names)
			for i, name := range names {
				for _, tag := range tags[i] {
					ref := backends.Ref{Collection: collection, Name: name, Tag: tag}
					if !yield(backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: "sif"}}, nil) {
						return
					}
				}
			}
			if err != nil {
				yield(backends.Entry{}, err)
				return
			}
		}
	}
}

// prefix returns what the repositories in and below collection begin with.
func (c *client) prefix(collection string) string {
	path := strings.Trim(c.namespace+"/"+collection, "/")
	if path == "" {
		return ""
	}
	return path + "/"
}

// below splits the repositories that begin with prefix into the collections
// and the images directly there.
func below(repositories []string, prefix string) (collections, images []string) {
	sets := [2]map[string]bool{{}, {}}
	for _, repo := range repositories {
		rest, ok := strings.CutPrefix(repo, prefix)
		if !ok {
			continue
		}
		first, _, deeper := strings.Cut(rest, "/")
		if deeper {
			sets[0][first] = true
		} else {
			sets[1][first] = true
		}
	}
	return slices.Sorted(maps.Keys(sets[0])), slices.Sorted(maps.Keys(sets[1]))
}

// tagsOf asks for the tags of several images at once. What came before an error
// is returned with it.
func (c *client) tagsOf(ctx context.Context, collection string, names []string) ([][]string, error) {
	tags := make([][]string, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() error {
			repo := c.repository(backends.Ref{Collection: collection, Name: name})
			list, err := c.tags(ctx, repo)
			list = slices.DeleteFunc(list, func(tag string) bool {
				return referrersTag.MatchString(tag) || c.known.foreign(repo, tag)
			})
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // in the catalogue still, but its last tag is gone
			case errors.Is(err, fs.ErrPermission):
				c.log.Debug("repository is not for this account", "repository", repo, "err", err)
				return nil
			}
			tags[i] = list
			return err
		})
	}
	err := group.Wait()
	return tags, err
}

// tags returns the tags of repo.
func (c *client) tags(ctx context.Context, repo string) ([]string, error) {
	seen := map[string]bool{}
	ctx = c.scoped(ctx, repo, pull)
	err := c.pages(ctx, fmt.Sprintf("/v2/%s/tags/list?n=%d", repo, pageSize), func(body io.Reader) error {
		var page struct {
			Tags []string `json:"tags"` // null after the last one was deleted
		}
		if err := httpx.JSON(body, &page); err != nil {
			return err
		}
		for _, tag := range page.Tags {
			if tagRule.MatchString(tag) {
				seen[tag] = true
			}
		}
		if len(seen) > maxNames {
			return errEndless
		}
		return nil
	})
	return slices.Sorted(maps.Keys(seen)), err
}

// repositories reads the part of the registry's catalogue in the namespace. Many registries have none, or
// none for everybody.
func (c *client) repositories(ctx context.Context) ([]string, error) {
	var all []string
	ctx = auth.AppendScopesForHost(ctx, c.base.Host, auth.ScopeRegistryCatalog)
	err := c.pages(ctx, fmt.Sprintf("/v2/_catalog?n=%d", pageSize), func(body io.Reader) error {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := httpx.JSON(body, &page); err != nil {
			return err
		}
		for _, repo := range page.Repositories {
			if checkRepository(repo) == nil && strings.HasPrefix(repo, c.prefix("")) {
				all = append(all, repo)
			}
		}
		if len(all) > maxNames {
			return errEndless
		}
		return nil
	})
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return all, err
	}
	// Is it the catalogue alone that is refused, or everything?
	if err := c.ping(ctx); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s does not tell its repositories: %v", errors.ErrUnsupported, c.base.Host, err)
}

// ping asks whether there is a registry that lets us in.
func (c *client) ping(ctx context.Context) error {
	req, err := c.request(ctx, http.MethodGet, "/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}

// A catalog is a list of repositories that is good for a moment, so that a walk
// of the tree does not ask for it in every directory. The zero value is empty.
type catalog struct {
	once uploads.Locks // for one reader at a time: the others wait for what it finds

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
	}
	return all, err
}

// forget makes the next get read.
func (c *catalog) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
	c.age++
}
