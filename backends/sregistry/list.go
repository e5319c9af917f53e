// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// pageSize is how many collections are asked for at once, where the server
	// gives ten by itself. Each brings the names of all its containers along.
	pageSize = 100
	maxPages = 1_000
	// maxListed bounds the names of a listing.
	maxListed = 250_000
	// listingLife is how long the names that came with the list of collections
	// are good for, maxKept how many are kept.
	listingLife = 30 * time.Second
	maxKept     = 50_000
)

// A collection is what the server tells of one in a listing.
type collection struct {
	ID         word        `json:"id"`
	Name       string      `json:"name"`
	Containers []container `json:"containers"`
}

// A container is what a listing or a search tells of one.
type container struct {
	Name       string          `json:"name"`
	Tag        string          `json:"tag"`
	URI        string          `json:"uri"`
	Version    string          `json:"version"`
	Collection json.RawMessage `json:"collection"`
}

// List yields the names. The root is the list of all public collections, and of the
// private ones that were read or made here, which cannot be listed themselves; a
// collection's own page is asked for unless the names came with the root just
// now, so that walking the whole tree costs no more than the root.
func (c *client) List(ctx context.Context, at string) iter.Seq2[backends.Entry, error] {
	if at == "" {
		return c.listRoot(ctx)
	}
	return func(yield func(backends.Entry, error) bool) {
		top, prefix, _ := strings.Cut(at, "/")
		if prefix != "" {
			prefix += "/"
		}
		names, err := c.names(ctx, top)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		known := c.facts.of(ctx, c, len(names))
		seen := map[string]bool{}
		told := false
		for _, n := range names {
			rest, below := strings.CutPrefix(n.container, prefix)
			if !below {
				continue
			}
			told = true
			e := backends.Entry{Image: backends.Image{Ref: n.ref(), Size: -1}}
			if m, ok := known[n]; ok {
				e.Image = c.image(m, n)
				if p, ok := c.locations.get(locationKey(e.Image)); ok {
					e.Image.Size = p.size
				}
			}
			if child, _, nested := strings.Cut(rest, "/"); nested {
				e = backends.Entry{Collection: at + "/" + child}
			}
			key := e.Collection + "\x00" + e.Image.Ref.String()
			if seen[key] {
				continue
			}
			seen[key] = true
			if !yield(e, nil) {
				return
			}
		}
		if !told && prefix != "" {
			yield(backends.Entry{}, backends.NotFound("no container's name begins with %q", prefix))
		}
	}
}

func (c *client) listRoot(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		fill := newListingBuilder(c.listing.generation())
		for col, err := range c.collections(ctx) {
			if err != nil {
				yield(backends.Entry{}, err)
				return
			}
			top, names, ok := c.under(col)
			if !ok {
				c.log.Warn("collection left out of a listing", "name", col.Name)
				continue
			}
			if fill.add(col.Name, top, names) && !yield(backends.Entry{Collection: top}, nil) {
				return
			}
		}
		c.listing.put(fill)
		for _, private := range slices.Sorted(slices.Values(c.signedOnly.Keys())) {
			if !fill.has(private) && !yield(backends.Entry{Collection: private}, nil) {
				return
			}
		}
	}
}

// under returns the collection of ours that col is in, and the names in col that can be
// asked for. A collection whose name has slashes is one of Google Cloud Build's, and has
// but containers of that name.
func (c *client) under(col collection) (top string, names []name, ok bool) {
	top, _, slashed := strings.Cut(col.Name, "/")
	if !plainPart.MatchString(top) {
		return "", nil, false
	}
	for _, found := range col.Containers {
		n := nameOf(col.Name, found.Name, found.Tag)
		if strings.HasPrefix(n.tag, dummyTag) {
			continue // an upload under way
		}
		if n.tag == "" || n.collection != top || c.CheckName(n.ref()) != nil {
			c.log.Warn("name left out of a listing", "collection", col.Name, "name", found.Name, "tag", found.Tag)
			continue
		}
		names = append(names, n)
	}
	return top, names, !slashed || len(names) > 0
}

// names returns what is in the collection called top.
// Errors: fs.ErrNotExist; errors.ErrUnsupported where the server does not list it.
func (c *client) names(ctx context.Context, top string) ([]name, error) {
	if names, ok := c.listing.get(top); ok {
		return names, nil
	}
	if !plainPart.MatchString(top) {
		return nil, backends.NotFound("no collection can be called %q", top)
	}
	var answer json.RawMessage
	var col collection
	err := c.page(ctx, "/api/collection/"+escape(top), &answer)
	if err == nil {
		err = httpx.Decode(answer, &col)
	}
	switch {
	case statusOf(err) == http.StatusInternalServerError:
		return nil, c.whyBroken(ctx, err)
	case err != nil:
		return nil, err
	case col.Name != top && top != strings.ToLower(top), c.listing.built(top, col.Name == ""):
		// The view looks for names in lower case alone, and for whole ones.
		names, err := c.namesInRoot(ctx, top)
		if statusOf(err) != 0 {
			err = backends.BrokenOff(err)
		}
		return names, err
	case string(answer) == "{}":
		return nil, backends.NotFound("no such collection") // the server says {} with status 200
	case col.Name != top:
		return nil, fmt.Errorf("%w: collection %.100q for %q", backends.ErrBadAnswer, col.Name, top)
	}
	_, names, _ := c.under(col)
	return names, nil
}

// namesInRoot is names by the list of all collections.
func (c *client) namesInRoot(ctx context.Context, top string) (names []name, err error) {
	found := map[string]bool{}
	for col, err := range c.collections(ctx) {
		if err != nil {
			return nil, err
		}
		if in, inside, ok := c.under(col); ok && in == top && !found[col.Name] {
			found[col.Name], names = true, append(names, inside...)
		}
	}
	if len(found) == 0 {
		return nil, backends.NotFound("no such collection")
	}
	return names, nil
}

// whyBroken tells a private collection, for which the server's view breaks, from
// a server that is broken: that has not just listed others, and does not now.
func (c *client) whyBroken(ctx context.Context, err error) error {
	if !c.listing.lately() {
		var any struct{}
		if asked := c.page(ctx, "/api/collections/?limit=1", &any); errors.Is(asked, backends.ErrRateLimited) {
			return asked
		} else if asked != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the server does not list private collections (what is named can be opened)", errors.ErrUnsupported)
}

// collections yields the public ones, page by page.
func (c *client) collections(ctx context.Context) iter.Seq2[collection, error] {
	return func(yield func(collection, error) bool) {
		listed := 0
		for page, err := range pages[collection](ctx, c, "/api/collections/") {
			if err != nil {
				yield(collection{}, err)
				return
			}
			c.listing.answered()
			for _, col := range page.Results {
				if listed += 1 + len(col.Containers); listed > maxListed {
					yield(collection{}, fmt.Errorf("%w: more than %d names in one listing", backends.ErrBadAnswer, maxListed))
					return
				}
				if !yield(col, nil) {
					return
				}
			}
		}
	}
}

// A listingBuilder collects the names of a listing while it is read.
type listingBuilder struct {
	generation int
	seen       map[string]bool // the server's collections
	names      map[string][]name
	built      map[string]bool // collections in which are some of Google Cloud Build's
	count      int
}

func newListingBuilder(generation int) *listingBuilder {
	return &listingBuilder{generation: generation, seen: map[string]bool{}, names: map[string][]name{}, built: map[string]bool{}}
}

// add takes the names in col, which is top or in it, and reports whether top is new.
func (f *listingBuilder) add(col, top string, names []name) bool {
	if f.seen[col] {
		return false
	}
	f.seen[col] = true
	f.built[top] = f.built[top] || col != top
	if f.count += len(names); f.count > maxKept {
		names = nil
	}
	_, old := f.names[top]
	f.names[top] = append(f.names[top], names...)
	return !old
}

func (f *listingBuilder) has(collection string) bool {
	_, ok := f.names[collection]
	return ok
}

// A listing is what the last list of all collections said. The zero value is
// empty.
type listing struct {
	mu     sync.Mutex // guards the fields below
	names  map[string][]name
	count  int // of all names
	until  time.Time
	forgot int             // how many times, so that what was read before is not kept after
	inside map[string]bool // as listingBuilder.built; nil before there was a whole listing
	whole  time.Time       // when the server listed all of it last
}

// built reports whether a collection has containers of Google Cloud Build, which its own
// page does not tell of; unknown is the answer before there was a listing.
func (l *listing) built(collection string, unknown bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside == nil {
		return unknown
	}
	return l.inside[collection]
}

// aliveFor is how long a server that has listed all is taken to be none that is broken.
const aliveFor = 5 * time.Minute

func (l *listing) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = time.Now()
}

// total is how many names the last listing of all had; 0 if there was none lately.
func (l *listing) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().After(l.until) {
		return 0
	}
	return l.count
}

func (l *listing) lately() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.whole) < aliveFor
}

func (l *listing) generation() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.forgot
}

// put keeps a complete listing, unless it is too large to keep.
func (l *listing) put(f *listingBuilder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside = f.built
	if f.generation != l.forgot || f.count > maxKept {
		return
	}
	l.names, l.count, l.until = f.names, f.count, time.Now().Add(listingLife)
}

func (l *listing) get(collection string) ([]name, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().After(l.until) {
		l.names = nil
	}
	names, ok := l.names[collection]
	return names, ok
}

// forget empties l after a change on the server.
func (l *listing) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = nil
	l.forgot++
}

// forget drops what was listed, after a change on the server.
func (c *client) forget() {
	c.listing.forget()
	c.facts.forget()
}
