// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// endpointTime is how long is believed what was told of a collection.
	endpointTime = 10 * time.Minute
	// searchLimit is how many collections one page of a search has; Globus tells 1000 at most.
	searchLimit = 100
	maxFound    = 1000
)

// An endpointDocument is what the Transfer API tells of a collection.
type endpointDocument struct {
	document

	ID          string  `json:"id"`
	DisplayName *string `json:"display_name"`
	EntityType  string  `json:"entity_type"`
	Description *string `json:"description"`
	HTTPSServer *string `json:"https_server"`
}

// An endpoint is a collection as it was told a while ago.
type endpoint struct {
	id, name string
	https    string // the address of its HTTPS server; "" if it has none
	told     time.Time
}

func (d endpointDocument) endpoint() (endpoint, error) {
	e := endpoint{id: strings.ToLower(d.ID), told: time.Now()}
	if err := d.is("endpoint"); err != nil {
		return e, err
	}
	if !isID(e.id) {
		return e, fmt.Errorf("%w: a collection without an id", backends.ErrBadAnswer)
	}
	if d.DisplayName != nil {
		e.name = *d.DisplayName
	}
	if d.HTTPSServer != nil {
		e.https = *d.HTTPSServer
	}
	return e, nil
}

// endpoint returns the collection of that UUID.
func (c *client) endpoint(ctx context.Context, id string) (endpoint, error) {
	if e, ok := c.found.Get(id); ok && time.Since(e.told) < endpointTime {
		return e, nil
	}
	var d endpointDocument
	if err := c.call(ctx, http.MethodGet, "/endpoint/"+id, nil, nil, &d); err != nil {
		return endpoint{}, err
	}
	e, err := d.endpoint()
	if err == nil {
		c.found.Put(id, e)
	}
	return e, err
}

// search yields the collections that a query finds.
func (c *client) search(ctx context.Context, query url.Values) iter.Seq2[endpointDocument, error] {
	return func(yield func(endpointDocument, error) bool) {
		query.Set("limit", strconv.Itoa(searchLimit))
		for offset := 0; offset < maxFound; {
			query.Set("offset", strconv.Itoa(offset))
			var page struct {
				document

				Data    []endpointDocument `json:"DATA"`
				HasNext bool               `json:"has_next_page"`
			}
			err := c.call(ctx, http.MethodGet, "/endpoint_search", query, nil, &page)
			if err == nil {
				err = page.is("endpoint_list")
			}
			if err != nil {
				yield(endpointDocument{}, err)
				return
			}
			for _, d := range page.Data {
				if !yield(d, nil) {
					return
				}
			}
			if offset += len(page.Data); !page.HasNext || len(page.Data) == 0 {
				return
			}
		}
	}
}

// gateway is the kind of what only makes collections.
const gateway = "GCSv5_endpoint"

// FindEndpoints implements backends.EndpointFinder: without a query it yields the account's own
// collections and those that others share with it.
func (c *client) FindEndpoints(ctx context.Context, query string) iter.Seq2[backends.Endpoint, error] {
	return func(yield func(backends.Endpoint, error) bool) {
		scopes := []string{"my-endpoints", "shared-with-me"}
		if query != "" {
			scopes = append(scopes, "all")
		}
		seen := map[string]bool{}
		for _, scope := range scopes {
			filter := url.Values{"filter_scope": {scope}}
			if query != "" {
				filter.Set("filter_fulltext", query)
			}
			for d, err := range c.search(ctx, filter) {
				var e endpoint
				if err == nil {
					e, err = d.endpoint()
				}
				if err != nil {
					yield(backends.Endpoint{}, err)
					return
				}
				if seen[e.id] || d.EntityType == gateway {
					continue
				}
				seen[e.id] = true
				if found := (backends.Endpoint{ID: e.id, Name: e.name, Kind: d.EntityType, Readable: e.https != ""}); !yield(found, nil) {
					return
				}
			}
		}
	}
}

// known returns the collections that the root shows: the configured ones, or the account's.
func (c *client) known(ctx context.Context) ([]endpoint, error) {
	var all []endpoint
	for _, id := range c.endpoints {
		e, err := c.endpoint(ctx, id)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized) {
			e, err = endpoint{id: id}, nil // looking into it will tell why
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if len(c.endpoints) > 0 {
		return all, nil
	}
	for e, err := range c.FindEndpoints(ctx, "") {
		if err != nil {
			return nil, err
		}
		all = append(all, endpoint{id: e.ID, name: e.Name})
	}
	return all, nil
}

// folders returns the names of collections as folders of the root: those that are not unique, or
// cannot be one, are their UUIDs.
func folders(all []endpoint) map[string]string {
	times := map[string]int{}
	for _, e := range all {
		times[e.name]++
	}
	ids := map[string]string{}
	for _, e := range all {
		name := e.name
		if name == "" || strings.ContainsAny(name, "/\x00") || times[name] > 1 || isID(strings.ToLower(name)) {
			name = e.id
		}
		ids[backends.EscapePart(name)] = e.id
	}
	return ids
}

// named returns the UUID of the collection that the first part of a path is.
//
// Errors: fs.ErrNotExist.
func (c *client) named(ctx context.Context, part string) (string, error) {
	if id := strings.ToLower(part); isID(id) {
		if !c.knows(id) {
			return "", errNotConfigured
		}
		return id, nil
	}
	if e, ok := c.found.Get("/" + part); ok && time.Since(e.told) < endpointTime {
		return e.id, nil
	}
	all, err := c.known(ctx)
	if err != nil {
		return "", err
	}
	ids := folders(all)
	id, ok := ids[part]
	if !ok {
		if id, ok = ids[backends.EscapePart(part)]; !ok {
			return "", backends.NotFound("no Globus collection of that name (its UUID finds each)")
		}
	}
	c.found.Put("/"+part, endpoint{id: id, told: time.Now()})
	return id, nil
}

// A place is a path in a collection, as the Transfer API takes it.
type place struct {
	endpoint string
	path     string // "/…", without a slash at its end; "" for the root
}

// oldName reads the first part of a name as the sregistry client writes it, "UUID:/path" from the
// root of the collection on or "UUID:path" from the home directory on: where the rest begins.
func oldName(part string) (id, root string, ok bool) {
	if plain, err := backends.UnescapePart(part); err == nil {
		part = plain
	}
	id, first, ok := strings.Cut(part, ":")
	if id = strings.ToLower(id); !ok || !isID(id) {
		return "", "", false
	}
	switch first {
	case "":
		return id, "", true
	case "~":
		return id, "/~", true
	}
	return id, "/~/" + first, true
}

// errNotConfigured is a collection that the setting does not name.
var errNotConfigured = backends.NotFound("no such Globus collection in the setting endpoint")

// knows reports whether a UUID is of one of the collections of the remote.
func (c *client) knows(id string) bool {
	return len(c.endpoints) == 0 || slices.Contains(c.endpoints, id)
}

// resolve returns where a path of package files is.
func (c *client) resolve(ctx context.Context, path string) (place, error) {
	p := place{path: c.root}
	first, rest, _ := strings.Cut(path, "/")
	id, root, old := oldName(first)
	switch {
	case old && !c.knows(id):
		return place{}, errNotConfigured
	case old:
		p, path = place{id, root}, rest
	case c.single():
		p.endpoint = c.endpoints[0]
	default:
		id, err := c.named(ctx, first)
		if err != nil {
			return place{}, err
		}
		p.endpoint, path = id, rest
	}
	if strings.HasPrefix(p.path, "/~") {
		real, err := c.realPath(ctx, p)
		if err != nil {
			return place{}, err
		}
		p.path = real
	}
	if path != "" {
		p.path += "/" + path
	}
	return p, nil
}

// realPath returns the path of the home directory, and below, as HTTPS takes it.
func (c *client) realPath(ctx context.Context, p place) (string, error) {
	home, rest, below := strings.Cut(strings.TrimPrefix(p.path, "/"), "/")
	key := p.endpoint + "/" + home
	path, ok := c.made.Get(key)
	if !ok {
		list, err := c.ls(ctx, place{p.endpoint, "/" + home}, "", 1, 0, func(fileDocument) bool { return true })
		if err != nil {
			return "", err
		}
		if list.AbsolutePath == nil || !strings.HasPrefix(*list.AbsolutePath, "/") {
			return "", fmt.Errorf("%w: root: the collection does not tell where %q is: write the path from \"/\" on", fs.ErrInvalid, p.path)
		}
		path = strings.TrimRight(*list.AbsolutePath, "/")
		c.made.Put(key, path)
	}
	if below {
		path += "/" + rest
	}
	return path, nil
}

// address returns the URL of a file at the collection's HTTPS server.
//
// Errors: errors.ErrUnsupported if it has none.
func (c *client) address(ctx context.Context, p place) (*url.URL, error) {
	e, err := c.endpoint(ctx, p.endpoint)
	if err != nil {
		return nil, err
	}
	if e.https == "" {
		return nil, backends.Saying(errors.ErrUnsupported, "the Globus collection %s has no HTTPS server, so its files can be listed but neither read nor written: they have to be in one of Globus Connect Server 5 that has HTTPS enabled",
			p.endpoint)
	}
	u, err := httpx.Target(c.transfer, e.https)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: p.path}, nil
}

// listEndpoints is List for the root of several collections.
func (c *client) listEndpoints(ctx context.Context, yield func(files.File, error) bool) {
	all, err := c.known(ctx)
	if err != nil {
		yield(files.File{}, err)
		return
	}
	for name := range folders(all) {
		if !yield(files.File{Path: name, Folder: true}, nil) {
			return
		}
	}
}
