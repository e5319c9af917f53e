// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const (
	entitiesPath    = "/v1/entities"
	collectionsPath = "/v1/collections"
	containersPath  = "/v1/containers"

	// maxListed bounds the names of one listing.
	maxListed = 1_000_000
)

// An entity, a collection and a container are what the library tells of them: names,
// and the ids of what is in them.
type entity struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Collections []string `json:"collections"`
}

type collection struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Containers []string `json:"containers"`
	Deleted    bool     `json:"deleted"`
	untold     error    // why nothing is known of it
}

type container struct {
	ID             string                       `json:"id"`
	Name           string                       `json:"name"`
	EntityName     string                       `json:"entityName"`
	CollectionName string                       `json:"collectionName"`
	ImageTags      map[string]string            `json:"imageTags"`
	ArchTags       map[string]map[string]string `json:"archTags"`
	Deleted        bool                         `json:"deleted"`
	untold         error                        // why nothing is known of it
}

// tags returns those that have an image for arch, in order. Old servers keep tags
// without architectures.
func (k container) tags(arch string) []string {
	tags := k.ImageTags
	if len(k.ArchTags) > 0 {
		tags = k.ArchTags[arch]
	}
	var names []string
	for tag := range tags {
		if tagRule.MatchString(tag) && !hashRule.MatchString(tag) {
			names = append(names, tag)
		}
	}
	slices.Sort(names)
	return names
}

// List yields names: at the root entities, in an entity its collections and the
// images of the one called "default", in a collection its images.
func (c *client) List(ctx context.Context, path string) iter.Seq2[backends.Entry, error] {
	name, inner, nested := strings.Cut(path, "/")
	switch {
	case path == "":
		return c.listRoot(ctx)
	case tooDeep(path) || !partRule.MatchString(name) || nested && !partRule.MatchString(inner):
		return backends.Fail[backends.Entry](backends.NotFound("a library has no collection %q", path))
	case nested:
		return c.listCollection(ctx, path, name, inner)
	}
	return c.listEntity(ctx, name)
}

// listRoot yields the configured entities, and those of the token's user.
func (c *client) listRoot(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		names := slices.Clone(c.entities)
		own, untold, err := c.listOwn(ctx)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		if untold != nil && !yield(backends.Entry{Untold: untold}, nil) {
			return
		}
		for _, e := range own {
			if partRule.MatchString(e.Name) {
				names = append(names, e.Name)
				c.listing.putEntity(e)
			}
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if !yield(backends.Entry{Collection: name}, nil) {
				return
			}
		}
	}
}

// listOwn returns the entities of the token's user, none without a token, or why the
// library does not tell them though some are configured.
func (c *client) listOwn(ctx context.Context) (own []entity, untold, err error) {
	token, err := c.login.get(ctx)
	if err != nil || token == "" {
		return nil, nil, err
	}
	own, err = c.ownEntities(ctx)
	silent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized)
	switch {
	case silent && len(c.entities) > 0:
		return nil, err, nil
	case silent:
		return nil, nil, fmt.Errorf("%w: the library does not tell the entities of the account (say entities = [\"…\"]): %v", errors.ErrUnsupported, err)
	case len(own) > maxListed:
		return nil, nil, errEndless
	}
	return own, nil, err
}

func (c *client) ownEntities(ctx context.Context) ([]entity, error) {
	var own []entity
	err := c.get(ctx, entitiesPath, &own)
	return own, err
}

var errEndless = fmt.Errorf("%w: more than %d names in one listing", backends.ErrBadAnswer, maxListed)

// listEntity yields the collections of an entity, and the images of its default one.
func (c *client) listEntity(ctx context.Context, entityName string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		collections, err := c.collectionsOf(ctx, entityName)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		seen := map[string]bool{}
		var inside []string
		for col, err := range collections {
			switch {
			case err != nil:
				yield(backends.Entry{}, err)
				return
			case col.untold != nil:
				if !yield(backends.Entry{Untold: col.untold}, nil) {
					return
				}
				continue
			case !partRule.MatchString(col.Name) || seen[col.Name]:
				continue
			case col.Name == defaultCollection:
				inside = col.Containers
			case !yield(backends.Entry{Collection: entityName + "/" + col.Name}, nil):
				return
			}
			seen[col.Name] = true
		}
		c.listContainers(ctx, entityName, inside, yield)
	}
}

// collectionsOf yields the collections of an entity that can be seen.
func (c *client) collectionsOf(ctx context.Context, entityName string) (iter.Seq2[collection, error], error) {
	e, ok := c.listing.entity(entityName)
	if !ok {
		if err := c.get(ctx, entitiesPath+"/"+entityName, &e); err != nil {
			return nil, err
		}
		c.listing.putEntity(e)
	}
	ids, err := distinct(e.Collections)
	if err != nil {
		return nil, err
	}
	generation := c.listing.generation()
	return gather(ctx, ids, func(ctx context.Context, id string) (collection, error) {
		var col collection
		untold, err := c.inner(ctx, collectionsPath, id, &col)
		col.untold = untold
		if err == nil && !col.Deleted && col.Name != "" {
			c.listing.putCollection(generation, entityName+"/"+col.Name, col)
		}
		if col.Deleted {
			col.Name = ""
		}
		return col, err
	}), nil
}

// inner asks for what an entity or a collection has named by id. What this account
// may not see, or what is gone since, is no error: untold then says which, and v
// stays as it is.
func (c *client) inner(ctx context.Context, path, id string, v any) (untold, err error) {
	escaped, err := idPath(id)
	if err != nil {
		return nil, err
	}
	err = c.get(ctx, path+"/"+escaped, v)
	hidden := errors.Is(err, fs.ErrPermission)
	if errors.Is(err, backends.ErrUnauthorized) {
		// With a token it is the token that was refused: then names would vanish
		// that are there.
		token, noToken := c.login.get(ctx)
		hidden = noToken == nil && token == ""
	}
	if hidden || errors.Is(err, fs.ErrNotExist) {
		c.log.Debug("left out of a listing", "path", path, "id", id, "err", err)
		return err, nil
	}
	return nil, err
}

// distinct returns ids, each once.
func distinct(ids []string) ([]string, error) {
	if len(ids) > maxListed {
		return nil, errEndless
	}
	seen := make(map[string]bool, len(ids))
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		twice := seen[id]
		seen[id] = true
		return twice
	}), nil
}

// listCollection yields the images of a collection.
func (c *client) listCollection(ctx context.Context, path, entityName, name string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		col, ok := c.listing.collection(entityName + "/" + name)
		if !ok {
			if err := c.get(ctx, collectionsPath+"/"+entityName+"/"+name, &col); err != nil {
				yield(backends.Entry{}, err)
				return
			}
		}
		c.listContainers(ctx, path, col.Containers, yield)
	}
}

// listContainers yields the tags of the containers as images in the collection that
// we call path.
func (c *client) listContainers(ctx context.Context, path string, ids []string, yield func(backends.Entry, error) bool) {
	ids, err := distinct(ids)
	if err != nil {
		yield(backends.Entry{}, err)
		return
	}
	listed, seen := 0, map[string]bool{}
	fetch := func(ctx context.Context, id string) (container, error) {
		var k container
		untold, err := c.inner(ctx, containersPath, id, &k)
		k.untold = untold
		return k, err
	}
	for k, err := range gather(ctx, ids, fetch) {
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		if k.untold != nil && !yield(backends.Entry{Untold: k.untold}, nil) {
			return
		}
		if k.Deleted || !partRule.MatchString(k.Name) || seen[k.Name] {
			continue
		}
		seen[k.Name] = true
		for _, tag := range k.tags(c.arch) {
			if listed++; listed > maxListed {
				yield(backends.Entry{}, errEndless)
				return
			}
			ref := backends.Ref{Collection: path, Name: k.Name, Tag: tag}
			if !yield(backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: backends.FormatSIF}}, nil) {
				return
			}
		}
	}
}

const (
	// listingLife is how long what was listed is good for, and maxKept how many ids
	// of containers are kept of it.
	listingLife = 30 * time.Second
	maxKept     = 250_000
)

// A listing is what was listed a moment ago: which collections an entity has, and
// which containers those. The zero value is empty.
type listing struct {
	mu          sync.Mutex // guards the fields below
	entities    map[string]entity
	collections map[string]collection // by entity/collection
	kept        int
	until       time.Time
	forgot      int // how many times, so that what was read before is not kept after
}

func (l *listing) generation() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.forgot
}

// expire empties l when it is old. Call with mu held.
func (l *listing) expire() {
	if now := time.Now(); now.After(l.until) {
		l.entities, l.collections, l.kept = map[string]entity{}, map[string]collection{}, 0
		l.until = now.Add(listingLife)
	}
}

func (l *listing) putEntity(e entity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if l.kept += 1 + len(e.Collections); l.kept <= maxKept {
		l.entities[e.Name] = e
	}
}

func (l *listing) putCollection(generation int, path string, col collection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if generation != l.forgot {
		return
	}
	if l.kept += 1 + len(col.Containers); l.kept <= maxKept {
		l.collections[path] = col
	}
}

func (l *listing) entity(name string) (entity, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	e, ok := l.entities[name]
	return e, ok
}

func (l *listing) collection(path string) (collection, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	col, ok := l.collections[path]
	return col, ok
}

// forget empties l after a change in the library.
func (l *listing) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
	l.forgot++
}
