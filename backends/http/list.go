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
// is no index. Of an image only the name is told, unless an index in JSON tells all.
// What an index has before errLimit is yielded before that.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		err := c.list(ctx, collection, func(e backends.Entry) bool { return yield(e, nil) })
		if err != nil && !errors.Is(err, errEnough) {
			yield(backends.Entry{}, err)
		}
	}
}

// maxHidden is how many names of one folder, with more than one file each, are kept in
// client.locations.
const maxHidden = 5000

// errEnough says that the caller of a listing wants no more.
var errEnough = errors.New("enough")

func (c *client) list(ctx context.Context, collection string, yield func(backends.Entry) bool) error {
	var none error
	for _, folder := range c.folders(collection) {
		x, digests, err := c.read(ctx, folder)
		switch {
		case err == nil, errors.Is(err, errLimit):
			t := lister{client: c, collection: collection, folder: folder, digests: digests, yield: yield}
			return errors.Join(t.all(x), err)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		none = cmp.Or(none, err)
	}
	if collection == "" {
		// The folder of the remote is taken to be there: what is named in it can be opened.
		return fmt.Errorf("%w: no index and no list of digests at %s", errors.ErrUnsupported, backends.Redact(c.home.String()))
	}
	return none
}

// read reads what a folder holds, and the digests where they are worth it.
//
// Errors: errLimit, with what came until then; fs.ErrNotExist if there is neither an
// index nor a list of digests; errors.ErrUnsupported, which is an fs.ErrPermission
// too, if the server does not show them.
func (c *client) read(ctx context.Context, folder string) (*index, map[string]digest, error) {
	x, err := c.index(ctx, folder)
	refused := errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized)
	switch {
	case err == nil && x.exact && x.hasSums:
		digests, err := c.digests(ctx, folder, false)
		return x, digests, err
	case err == nil, !refused && !errors.Is(err, fs.ErrNotExist):
		return x, nil, err
	}
	digests, sumsErr := c.digests(ctx, folder, true)
	switch {
	case sumsErr != nil:
		return nil, nil, sumsErr
	case digests == nil && refused:
		return nil, nil, fmt.Errorf("%w: the server shows no index: %w", errors.ErrUnsupported, err)
	case digests == nil:
		return nil, nil, err
	}
	x = newIndex(c.naming)
	for name := range digests {
		x.add(item{name: name, size: -1})
	}
	x.untold = err // the index may have had more
	return x, digests, nil
}

// index reads a folder's index.
// Errors: those of index.read; those of httpx.Do.
func (c *client) index(ctx context.Context, folder string) (*index, error) {
	resp, err := c.do(ctx, nethttp.MethodGet, folder, func(req *nethttp.Request) {
		req.Header.Set("Accept", "text/html, application/json;q=0.5")
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	asked, err := c.home.Parse(folder)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	// The page of another place has other files, and may be somebody else's.
	if at := resp.Request.URL; at.Scheme != asked.Scheme || !strings.EqualFold(at.Host, asked.Host) || dir(at.Path) != asked.Path {
		at := *at
		at.User, at.RawQuery, at.Fragment = nil, "", ""
		return nil, fmt.Errorf("%w: the server sends to %s for the index: if that is right, url should say so", backends.ErrBadAnswer, &at)
	}
	x := newIndex(c.naming)
	return x, x.read(resp, asked)
}

// dir is what stands before the last part of a path, which may be "index.html".
func dir(p string) string {
	before, _ := path.Split(p)
	return before
}

// A telling yields what lies in a folder.
type lister struct {
	*client
	collection, folder string
	digests            map[string]digest
	yield              func(backends.Entry) bool

	usual  string // the format that is looked for first from now on
	hidden int    // files whose name another file has too
}

// all yields the entries of x, collections first.
// Errors: errEnough.
func (t *lister) all(x *index) error {
	for _, name := range x.children() {
		if !t.yield(backends.Entry{Collection: strings.TrimPrefix(t.collection+"/"+name, "/")}) {
			return errEnough
		}
	}
	t.usual = x.usual()
	for img := range x.all() {
		if !t.image(img) {
			return errEnough
		}
	}
	if t.hidden > 0 {
		t.log.Warn("files whose name another file has too are left out of a listing", "collection", t.collection, "count", t.hidden)
	}
	if t.hidden < maxHidden { // which of two files is meant is remembered
		t.first.Put(t.folder, t.usual)
	}
	for _, href := range x.strays {
		// In no collection of this remote: it is left out, and counted.
		if !t.yield(backends.Entry{Image: backends.Image{Ref: backends.Ref{Collection: "..", Name: href, Tag: "link"}}}) {
			return errEnough
		}
	}
	if x.untold != nil && !t.yield(backends.Entry{Untold: x.untold}) {
		return errEnough
	}
	return nil
}

// image yields an image. Of several files that are one name the one that Stat finds
// is told.
func (t *lister) image(img image) bool {
	ref := backends.Ref{Collection: t.collection, Name: img.name, Tag: img.tag}
	it := img.files[0]
	if len(img.files) > 1 {
		it = slices.MinFunc(img.files, func(a, b item) int { return t.naming.rank(ref, a.name, "") - t.naming.rank(ref, b.name, "") })
		t.hidden += len(img.files) - 1
	}
	key := locationKey(ref)
	_, known := t.locations.Get(key)
	if known || len(img.files) > 1 || t.folder != t.folders(t.collection)[0] || t.naming.rank(ref, it.name, t.usual) > 0 {
		t.locations.Put(key, location{t.folder, it.name})
	}
	_, _, format, _ := t.naming.parse(it.name)
	e := backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: format, URL: t.folder + segment(it.name)}}
	sum, known := t.digests[it.name]
	switch {
	case it.size < 0:
		return t.yield(e)
	case known:
		e.Image.Version, e.Image.Digest = sum.String(), sum.String()
	case !it.modified.IsZero() && !t.ownTags.Load():
		e.Image.Version = nginxTag(it.modified, it.size)
	}
	if e.Image.Version != "" {
		e.Image.Size, e.Image.Modified = it.size, it.modified
	}
	return t.yield(e)
}
