// SPDX-License-Identifier: Apache-2.0

package http

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	nethttp "net/http"
	"path"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// List yields what the folder's index names, or its list of digests where there
// is no index. Of an image only the name is told, unless an index in JSON and a
// list of digests together tell all.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		entries, err := c.entries(ctx, collection)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (c *client) entries(ctx context.Context, collection string) ([]backends.Entry, error) {
	var none error
	for _, folder := range c.folders(collection) {
		p, digests, err := c.read(ctx, folder)
		switch {
		case err == nil:
			return c.tell(collection, folder, p, digests), nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		none = cmp.Or(none, err)
	}
	if collection == "" {
		// The folder of the remote is taken to be there: what is named in it can be opened.
		return nil, fmt.Errorf("%w: no index and no list of digests at %s", errors.ErrUnsupported, backends.Redact(c.home.String()))
	}
	return nil, none
}

// read reads what a folder holds, and the digests where they are worth it.
//
// Errors: fs.ErrNotExist if there is neither an index nor a list of digests;
// errors.ErrUnsupported, which is an fs.ErrPermission too, if the server does not
// show them.
func (c *client) read(ctx context.Context, folder string) (page, map[string]digest, error) {
	p, err := c.index(ctx, folder)
	refused := errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized)
	switch {
	case err == nil:
		exact := slices.ContainsFunc(p.items, func(it item) bool { return it.size >= 0 })
		listed := slices.ContainsFunc(p.items, func(it item) bool { return it.name == c.sums.name })
		if !exact || !listed {
			return p, nil, nil
		}
		digests, err := c.digests(ctx, folder, false)
		return p, digests, err
	case !refused && !errors.Is(err, fs.ErrNotExist):
		return page{}, nil, err
	}
	digests, sumsErr := c.digests(ctx, folder, true)
	switch {
	case sumsErr != nil:
		return page{}, nil, sumsErr
	case digests == nil && refused:
		return page{}, nil, fmt.Errorf("%w: the server shows no index: %w", errors.ErrUnsupported, err)
	case digests == nil:
		return page{}, nil, err
	}
	for name := range digests {
		p.items = append(p.items, item{name: name, size: -1})
	}
	p.untold = err // the index may have had more
	return p, digests, nil
}

// index reads a folder's index.
func (c *client) index(ctx context.Context, folder string) (page, error) {
	resp, err := c.do(ctx, nethttp.MethodGet, folder, func(req *nethttp.Request) {
		req.Header.Set("Accept", "text/html, application/json;q=0.5")
	})
	if err != nil {
		return page{}, err
	}
	defer resp.Body.Close()
	asked, err := c.home.Parse(folder)
	if err != nil {
		return page{}, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	// The page of another place has other files, and may be somebody else's.
	if at := resp.Request.URL; at.Scheme != asked.Scheme || !strings.EqualFold(at.Host, asked.Host) || dir(at.Path) != asked.Path {
		at := *at
		at.User, at.RawQuery, at.Fragment = nil, "", ""
		return page{}, fmt.Errorf("%w: the server sends to %s for the index: if that is right, url should say so", backends.ErrBadAnswer, &at)
	}
	return readIndex(resp, asked)
}

// dir is what stands before the last part of a path, which may be "index.html".
func dir(p string) string {
	before, _ := path.Split(p)
	return before
}

// tell makes entries of what lies in a folder. Of several files that are one name
// the one that Stat finds is told.
func (c *client) tell(collection, folder string, p page, digests map[string]digest) []backends.Entry {
	var entries []backends.Entry
	at := map[backends.Ref]int{} // where in entries
	base := map[backends.Ref]string{}
	hidden := 0
	for _, it := range p.items {
		if it.folder {
			if child := decodeFolder(it.name); it.name[0] != '.' {
				entries = append(entries, backends.Entry{Collection: strings.TrimPrefix(collection+"/"+child, "/")})
			}
			continue
		}
		name, tag, format, ok := parse(it.name)
		if !ok {
			continue
		}
		ref := backends.Ref{Collection: collection, Name: name, Tag: tag}
		e := backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: format, URL: folder + segment(it.name)}}
		if sum, known := digests[it.name]; known && it.size >= 0 {
			e.Image.Version, e.Image.Digest = sum.String(), sum.String()
			e.Image.Size, e.Image.Modified = it.size, it.modified
		}
		i, twice := at[ref]
		if twice {
			hidden++
		}
		switch {
		case !twice:
			at[ref], base[ref] = len(entries), it.name
			entries = append(entries, e)
		case rank(ref, it.name) < rank(ref, base[ref]):
			entries[i], base[ref] = e, it.name
		}
	}
	if hidden > 0 {
		c.log.Warn("files whose name another file has too are left out of a listing", "collection", collection, "count", hidden)
	}
	if p.untold != nil {
		entries = append(entries, backends.Entry{Untold: p.untold})
	}
	usual := folder == c.folders(collection)[0]
	for ref, name := range base {
		key := placeKey(ref)
		if _, known := c.places.get(key); known || !usual || rank(ref, name) > 0 {
			c.places.put(key, place{folder, name})
		}
	}
	for _, href := range p.strays {
		// In no collection of this remote: it is left out, and counted.
		entries = append(entries, backends.Entry{Image: backends.Image{Ref: backends.Ref{Collection: "..", Name: href, Tag: "link"}}})
	}
	return entries
}
