// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

// changes is the layer of what this process does to images and collections.
type changes struct{ blobs }

// Delete removes an image from its registry, provided that its name still means
// it; see backends.Deleter for one with a version in its Ref. It does not look at
// Policy.Delete. The bytes stay in the cache: other names may mean them.
//
// Errors: backends.ErrReadOnly; those of backends.Deleter, but fs.ErrNotExist if
// the name means another version.
func (c *changes) Delete(ctx context.Context, remote string, img backends.Image) error {
	return c.remove(ctx, remote, img, "delete", (*backends.Client).Delete)
}

// remove takes the name of an image away by the method that does op.
func (c *changes) remove(ctx context.Context, remote string, img backends.Image, op string, by func(*backends.Client, context.Context, backends.Image) error) error {
	r, err := c.Live(remote)
	if err != nil {
		return err
	}
	if err := r.ReadOnly(); err != nil {
		return &backends.Error{Op: op, Remote: remote, Ref: img.Ref, Err: err}
	}
	err = by(r.Client, ctx, img)
	c.Note(remote, err)
	if errors.Is(err, backends.ErrChanged) {
		c.Outdated(r, img.Ref)
		return Moved(remote, img.Ref)
	}
	if err != nil {
		return err
	}
	return c.Deleted(r, img.Ref)
}

// Moved is the error of a deletion whose tag means another version by now: an
// fs.ErrNotExist, because the version that was to be deleted has no name any more.
func Moved(remote string, ref backends.Ref) error {
	return &backends.Error{Op: "delete", Remote: remote, Ref: ref,
		Err: backends.NotFound("the tag means another version now; nothing was deleted")}
}

// Published stores that a name means img since this process pushed it, and emits events.
func (c *changes) Published(r Remote, ref backends.Ref, img backends.Image) {
	if err := c.records.Unmake(r.Name, ref.Collection); err != nil {
		c.opts.Log.Warn("a collection made by hand could not be forgotten", "remote", r.Name, "collection", ref.Collection, "err", err)
	}
	if r.Local() {
		c.watchers.emit(
			Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection},
			Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
		return
	}
	store, err := c.store()
	if err != nil {
		c.opts.Log.Warn("a pushed image could not be stored", "remote", r.Name, "image", ref.String(), "err", err)
		return
	}
	key := string(index.ImageKey(r.Name, ref))
	c.negative.drop(key)
	c.failed.drop(key)
	c.asking.Forget(key)
	for at := ref.Collection; at != ""; at, _ = index.Parent(at) {
		c.failed.drop(string(index.HeaderKey(r.Name, at)))
	}
	unlock := c.lock(r.Name, ref.Collection)
	c.trees.Lock()
	c.writes.add(c.Now(), []byte(key))
	c.writes.add(c.Now(), index.ChildKeys(r.Name, ref.Collection)...)
	old, _ := store.Entry(r.Name, ref)
	now := index.Entry{Flags: index.InListing | index.Full, Seen: c.Now(), Image: img}
	changes := append([]index.KV{{Key: []byte(key), Value: index.Encode(now, ref)}}, c.history(store, r.Name, ref, old, now)...)
	parents := store.Ancestors(r.Name, ref.Collection, index.InListing)
	err = store.ApplyOwn(append(changes, parents...)...)
	c.trees.Unlock()
	unlock()
	if err != nil {
		c.opts.Log.Warn("a pushed image could not be stored", "remote", r.Name, "image", ref.String(), "err", err)
	}
	c.saw(r.Name, withRef(img, ref), false)
	c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	c.tellAbove(r.Name, ref.Collection, parents)
	c.watchers.emit(Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
}

// Deleted forgets a name that this process deleted, and emits events.
func (c *changes) Deleted(r Remote, ref backends.Ref) error {
	remote := r.Name
	ref.Version = ""
	if r.Local() {
		c.watchers.emit(
			Event{Kind: ImageGone, Remote: remote, Collection: ref.Collection, Ref: ref},
			Event{Kind: ListingChanged, Remote: remote, Collection: ref.Collection})
		return nil
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	key := string(index.ImageKey(remote, ref))
	c.writes.add(c.Now(), []byte(key))
	c.asking.Forget(key)
	c.negative.add(key, absence{
		err: &backends.Error{Op: "stat", Remote: remote, Ref: ref, Err: backends.NotFound("no such image")},
		at:  c.Now(),
	})
	c.forget(s, remote, ref)
	c.prune(s, remote, ref.Collection)
	return nil
}

// Outdated makes the next lookup of a name ask the registry: the name proved to mean
// something else than what is stored.
func (c *changes) Outdated(r Remote, ref backends.Ref) {
	ref.Version = ""
	if !r.Local() {
		s, err := c.store()
		if err != nil {
			return
		}
		c.negative.drop(string(index.ImageKey(r.Name, ref)))
		c.doubt(s, r.Name, ref)
	}
	c.watchers.emit(Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
}

// prune drops a collection from its parent when its last image is gone.
func (c *changes) prune(s *index.Index, remote, collection string) {
	for collection != "" && c.pruneOne(s, remote, collection) {
		collection, _ = index.Parent(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

func (c *changes) pruneOne(s *index.Index, remote, collection string) bool {
	c.trees.Lock()
	defer c.trees.Unlock()
	if s.HasEntries(remote, collection) {
		return false
	}
	c.writes.add(c.Now(), index.ChildKey(remote, collection))
	gone := index.Encode(index.Entry{Flags: index.Emptied}, backends.Ref{})
	err := s.ApplyOwn(index.KV{Key: index.ChildKey(remote, collection), Value: gone}, index.KV{Key: index.HeaderKey(remote, collection)})
	if err != nil {
		c.opts.Log.Warn("an empty collection could not be forgotten", "remote", remote, "collection", collection, "err", err)
	}
	return err == nil
}

// Mkdir makes a collection that stays here until an image is pushed into it.
//
// Errors: fs.ErrExist; backends.ErrReadOnly; fs.ErrInvalid for a name that the
// registry cannot hold.
func (c *changes) Mkdir(ctx context.Context, remote, collection string) error {
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
	// A folder can be prepared while the registry does not answer.
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

// mostParts is how many more parts a name below a new collection may need: the library
// has entity, collection and container.
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
func (c *changes) Rmdir(ctx context.Context, remote, collection string) error {
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
			return fail(err) // whether it is empty is not known
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

// Keep makes a collection that vanished with its last image one made by Mkdir, which
// stays until Rmdir: rm -r and mv empty a folder file by file and then remove it.
// A collection that is still there stays as it is.
func (c *changes) Keep(ctx context.Context, remote, collection string) error {
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

// isTarget reports whether a draft will be published in a collection. A state that was
// never opened has none.
func (c *changes) isTarget(remote, collection string) bool {
	s := c.Opened()
	if s == nil || s.Spool == nil {
		return false
	}
	for _, d := range s.Spool.Drafts() {
		in := d.Target.Ref.Collection
		// A draft that failed, or was cut off, is in no directory.
		comes := d.State == spool.Writing || d.State == spool.Publishing || d.Queued()
		if comes && d.Target.Remote == remote && (in == collection || index.Below(in, collection)) {
			return true
		}
	}
	return false
}
