// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"

	"github.com/sregfs/sregfs/backends"
)

// Remove deletes the image that uri names now. It does not look at
// Policy.Delete: it was said for this one image.
//
// Errors: those of Resolve and Delete.
func (c *Catalog) Remove(ctx context.Context, uri string) (Record, error) {
	r, ref, err := c.Resolve(ctx, uri, true)
	if err != nil {
		return Record{}, err
	}
	r, ref, err = c.subject(r.Name, ref)
	if err != nil {
		return Record{}, err
	}
	// What is deleted is what is there, not what was there a minute ago.
	img, err := c.statNow(ctx, r, ref)
	if err != nil {
		return Record{}, err
	}
	rec := c.record(r.Name, img)
	return rec, c.Delete(ctx, r.Name, img)
}

// Delete removes an image from its registry, provided that its name still means
// it. It does not look at Policy.Delete. The bytes stay in the cache: other
// names may mean them.
//
// Errors: backends.ErrReadOnly; those of backends.Deleter.
func (c *Catalog) Delete(ctx context.Context, remote string, img backends.Image) error {
	r, err := c.live(remote)
	if err != nil {
		return err
	}
	if r.Policy.ReadOnly {
		return &backends.Error{Op: "delete", Remote: remote, Ref: img.Ref,
			Err: fmt.Errorf("%w (read_only is set in its configuration)", backends.ErrReadOnly)}
	}
	err = r.Client.Delete(ctx, img)
	c.health.note(remote, err, c.now())
	if err != nil {
		return err
	}
	ref := img.Ref
	ref.Version = ""
	if r.atHand() {
		c.watchers.emit(
			Event{Kind: ImageGone, Remote: remote, Collection: ref.Collection, Ref: ref},
			Event{Kind: ListingChanged, Remote: remote, Collection: ref.Collection})
		return nil
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	key := string(imageKey(remote, ref))
	c.own.add(c.now(), []byte(key))
	c.asking.Forget(key)
	c.absent.add(key, c.now())
	c.forget(s, remote, ref)
	c.prune(s, remote, ref.Collection)
	return nil
}

// prune drops a collection from its parent when its last image is gone; a
// registry that still shows it brings it back with the next listing.
func (c *Catalog) prune(s Store, remote, collection string) {
	for collection != "" && c.pruneOne(s, remote, collection) {
		collection, _ = parentOf(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

func (c *Catalog) pruneOne(s Store, remote, collection string) bool {
	c.trees.Lock()
	defer c.trees.Unlock()
	if hasEntries(s, remote, collection) {
		return false
	}
	c.own.add(c.now(), childKey(remote, collection))
	err := s.Apply(KV{Key: childKey(remote, collection)}, KV{Key: headerKey(remote, collection)})
	if err != nil {
		c.opts.Log.Warn("an empty collection could not be forgotten", "remote", remote, "collection", collection, "err", err)
	}
	return err == nil
}

// hasEntries reports whether anything is stored directly in a collection.
func hasEntries(s Store, remote, collection string) bool {
	for _, err := range s.Scan(listPrefix(remote, collection), nil) {
		return err == nil
	}
	return false
}
