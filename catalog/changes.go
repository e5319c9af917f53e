// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// Delete removes an image from its registry, provided that its name still means
// it; see backends.Deleter for one with a version in its Ref. It does not look at
// Policy.Delete. The bytes stay in the cache: other names may mean them.
//
// Errors: backends.ErrReadOnly; those of backends.Deleter, but fs.ErrNotExist if
// the name means another version.
func (c *Catalog) Delete(ctx context.Context, remote string, img backends.Image) error {
	r, err := c.Live(remote)
	if err != nil {
		return err
	}
	if r.Policy.ReadOnly {
		return &backends.Error{Op: "delete", Remote: remote, Ref: img.Ref,
			Err: fmt.Errorf("%w (read_only is set in its configuration)", backends.ErrReadOnly)}
	}
	err = r.Client.Delete(ctx, img)
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

// Moved is why nothing was deleted. To whoever wanted the other version gone, it is
// not there any more.
func Moved(remote string, ref backends.Ref) error {
	return &backends.Error{Op: "delete", Remote: remote, Ref: ref,
		Err: backends.NotFound("the tag means another version now; nothing was deleted")}
}

// Published stores what a name means since we pushed it, and tells.
func (c *Catalog) Published(r Remote, ref backends.Ref, img backends.Image) {
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
	c.absent.drop(key)
	c.failed.drop(key)
	c.asking.Forget(key)
	for at := ref.Collection; at != ""; at, _ = index.Parent(at) {
		c.failed.drop(string(index.HeaderKey(r.Name, at)))
	}
	unlock := c.lock(r.Name, ref.Collection)
	c.trees.Lock()
	c.own.add(c.Now(), []byte(key))
	c.own.add(c.Now(), index.ChildKeys(r.Name, ref.Collection)...)
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
	c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	c.tellAbove(r.Name, ref.Collection, parents)
	c.watchers.emit(Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
}

// Deleted forgets a name that is no more since we took it away, and tells.
func (c *Catalog) Deleted(r Remote, ref backends.Ref) error {
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
	c.own.add(c.Now(), []byte(key))
	c.asking.Forget(key)
	c.absent.add(key, c.Now())
	c.forget(s, remote, ref)
	c.prune(s, remote, ref.Collection)
	return nil
}

// Outdated makes the next look at a name ask: it was found to mean something else
// than what is stored.
func (c *Catalog) Outdated(r Remote, ref backends.Ref) {
	ref.Version = ""
	if !r.Local() {
		s, err := c.store()
		if err != nil {
			return
		}
		c.absent.drop(string(index.ImageKey(r.Name, ref)))
		c.doubt(s, r.Name, ref)
	}
	c.watchers.emit(Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
}

// prune drops a collection from its parent when its last image is gone.
func (c *Catalog) prune(s *index.Index, remote, collection string) {
	for collection != "" && c.pruneOne(s, remote, collection) {
		collection, _ = index.Parent(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

func (c *Catalog) pruneOne(s *index.Index, remote, collection string) bool {
	c.trees.Lock()
	defer c.trees.Unlock()
	if s.HasEntries(remote, collection) {
		return false
	}
	c.own.add(c.Now(), index.ChildKey(remote, collection))
	gone := index.Encode(index.Entry{Flags: index.Emptied}, backends.Ref{})
	err := s.ApplyOwn(index.KV{Key: index.ChildKey(remote, collection), Value: gone}, index.KV{Key: index.HeaderKey(remote, collection)})
	if err != nil {
		c.opts.Log.Warn("an empty collection could not be forgotten", "remote", remote, "collection", collection, "err", err)
	}
	return err == nil
}
