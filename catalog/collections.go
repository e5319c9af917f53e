// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

// Mkdir makes a collection that stays here until an image is pushed into it.
//
// Errors: fs.ErrExist; backends.ErrReadOnly; fs.ErrInvalid for a name that the
// registry cannot hold.
func (c *Catalog) Mkdir(ctx context.Context, remote, collection string) error {
	fail := func(err error) error {
		return &backends.Error{Op: "mkdir", Remote: remote, Subject: backends.EscapePath(collection), Err: err}
	}
	r, err := c.Remote(remote)
	if err != nil {
		return err
	}
	if err := r.writable(); err != nil {
		return fail(err)
	}
	if err := checkCollection(collection); err != nil {
		return fail(err)
	}
	if err := r.holds(collection); err != nil {
		return fail(err)
	}
	// A registry that does not answer does not keep anybody from preparing a folder.
	if is, err := c.IsCollection(ctx, remote, collection); err == nil && is {
		return fail(backends.Saying(fs.ErrExist, "there is such a collection"))
	} else if ctx.Err() != nil {
		return fail(ctx.Err())
	}
	if err := c.records.Make(remote, collection); err != nil {
		return fail(err)
	}
	parent, _ := index.Parent(collection)
	c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: parent})
	return nil
}

// mostParts is how many parts of a name a service may want beyond a collection that
// is made: the library has entity, collection and container.
const mostParts = 3

// holds returns why no image can ever be in a collection of the remote, or below it.
func (r Remote) holds(collection string) (err error) {
	for range mostParts {
		try := r.Takes(backends.Ref{Collection: collection, Name: "x", Tag: backends.DefaultTag})
		if try == nil {
			return nil
		}
		err = cmp.Or(err, try)
		collection = index.Join(collection, "x")
	}
	return err
}

// Rmdir removes a collection made by Mkdir that is empty.
// Errors: fs.ErrNotExist; cache.ErrInUse if it is not empty; backends.ErrNotAllowed
// if it exists in the registry, though nothing in it can be listed.
func (c *Catalog) Rmdir(ctx context.Context, remote, collection string) error {
	fail := func(err error) error {
		return &backends.Error{Op: "rmdir", Remote: remote, Subject: backends.EscapePath(collection), Err: err}
	}
	r, err := c.Remote(remote)
	if err != nil {
		return err
	}
	made := collection != "" && c.records.IsMade(remote, collection)
	for _, err := range c.List(ctx, remote, collection) {
		if err == nil {
			return fail(fmt.Errorf("%w: it is not empty", cache.ErrInUse))
		}
		if made {
			return fail(err) // nobody knows whether it is
		}
		break
	}
	if !made {
		is, err := c.IsCollection(ctx, remote, collection)
		switch {
		case err != nil:
			return err
		case is:
			return fail(fmt.Errorf("%w: it is in the registry; it goes with its last image", backends.ErrNotAllowed))
		}
		return fail(backends.NotFound("no such collection"))
	}
	if c.isTarget(remote, collection) {
		return fail(fmt.Errorf("%w: an image is being copied into it", cache.ErrInUse))
	}
	if err := c.records.Unmake(remote, collection); err != nil {
		return fail(err)
	}
	if s, err := c.store(); err == nil && !r.Local() {
		c.pruneOne(s, remote, collection)
	}
	parent, _ := index.Parent(collection)
	c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: parent})
	if err := c.Keep(ctx, remote, parent); err != nil {
		return fail(err)
	}
	return nil
}

// Keep makes a collection that went with its last image one made by Mkdir, which
// stays until Rmdir: whoever empties a folder file by file (rm -r, mv) expects to
// remove the folder then. A collection that is still there stays as it is.
func (c *Catalog) Keep(ctx context.Context, remote, collection string) error {
	r, err := c.Remote(remote)
	if err != nil || collection == "" || c.records.IsMade(remote, collection) {
		return err
	}
	there := false
	if r.Local() {
		there, err = c.IsCollection(ctx, remote, collection)
	} else if s, storeErr := c.store(); storeErr == nil {
		there = s.HasCollection(remote, collection)
	} else {
		err = storeErr
	}
	if err != nil || there {
		return err
	}
	if err := c.records.Make(remote, collection); err != nil {
		return err
	}
	parent, _ := index.Parent(collection)
	c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: parent})
	return nil
}

// isTarget reports whether a draft is on its way into a collection. A state
// that was never opened has none.
func (c *Catalog) isTarget(remote, collection string) bool {
	s := c.Opened()
	if s == nil || s.Spool == nil {
		return false
	}
	for _, d := range s.Spool.Drafts() {
		in := d.Target.Ref.Collection
		// What failed or was cut is in the spool, and in no directory.
		comes := d.State == spool.Writing || d.State == spool.Publishing || d.Queued()
		if comes && d.Target.Remote == remote && (in == collection || index.Below(in, collection)) {
			return true
		}
	}
	return false
}
