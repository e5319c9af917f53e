// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

// Removable returns the image that Remove would delete: what the registry has now,
// not what it had a minute ago. A uri without a remote means the local one and no
// other.
//
// Errors: those of Resolve and of backends.Backend.Stat; spool.ErrInUse for what is
// only being uploaded yet.
func (c *Catalog) Removable(ctx context.Context, uri string) (Record, error) {
	r, img, err := c.removable(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	return c.record(r.Name, img), nil
}

func (c *Catalog) removable(ctx context.Context, uri string) (Remote, backends.Image, error) {
	r, img, err := c.named(ctx, uri, localRemote)
	if e, ok := errors.AsType[*backends.Error](err); ok && errors.Is(err, fs.ErrNotExist) {
		if id := c.onItsWay(e.Remote, e.Ref); id != "" {
			err = &backends.Error{Op: "delete", Remote: e.Remote, Ref: e.Ref,
				Err: fmt.Errorf("%w: it is still on its way to the registry (to give it up: sreg uploads discard %s)", spool.ErrInUse, id)}
		}
	}
	return r, img, err
}

// onItsWay returns the ID of an upload to a name, "" if there is none.
func (c *Catalog) onItsWay(remote string, ref backends.Ref) string {
	s := c.state.Load()
	if s == nil || s.Spool == nil {
		return ""
	}
	for _, d := range s.Spool.Drafts() {
		if d.Target.Remote == remote && d.Target.Ref == ref && c.Pending(d.ID) {
			return d.ID
		}
	}
	return ""
}

// Remove deletes the image that uri names now: with a version in it exactly that
// one. If means is not empty, uri must still mean that version, the one that
// somebody was asked about. It does not look at Policy.Delete: it was said for
// this one image.
//
// Errors: those of Removable and Delete; fs.ErrNotExist if uri means another
// version.
func (c *Catalog) Remove(ctx context.Context, uri, means string) (Record, error) {
	r, img, err := c.removable(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if means != "" && img.Version != means {
		return Record{}, moved(r.Name, img.Ref)
	}
	return c.record(r.Name, img), c.Delete(ctx, r.Name, img)
}

// named returns what uri names at the registry now, for a verb that changes
// something there.
func (c *Catalog) named(ctx context.Context, uri, without string) (Remote, backends.Image, error) {
	r, ref, err := c.resolve(ctx, uri, without, false)
	if err != nil {
		return r, backends.Image{}, err
	}
	if r, ref, err = c.subject(r.Name, ref); err != nil {
		return r, backends.Image{}, err
	}
	img, err := c.statNow(ctx, r, ref)
	img.Ref.Version = ref.Version
	return r, img, err
}

// moved is why nothing was deleted. To whoever wanted the other version gone, it is
// not there any more.
func moved(remote string, ref backends.Ref) error {
	return &backends.Error{Op: "delete", Remote: remote, Ref: ref,
		Err: backends.NotFound("the tag means another version now; nothing was deleted")}
}

// Delete removes an image from its registry, provided that its name still means
// it; see backends.Deleter for one with a version in its Ref. It does not look at
// Policy.Delete. The bytes stay in the cache: other names may mean them.
//
// Errors: backends.ErrReadOnly; those of backends.Deleter, but fs.ErrNotExist if
// the name means another version.
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
	if errors.Is(err, backends.ErrChanged) {
		c.outdated(r, img.Ref)
		return moved(remote, img.Ref)
	}
	if err != nil {
		return err
	}
	return c.deleted(r, img.Ref)
}

// deleted forgets a name that is no more since we took it away, and tells.
func (c *Catalog) deleted(r Remote, ref backends.Ref) error {
	remote := r.Name
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
	key := string(index.ImageKey(remote, ref))
	c.own.add(c.now(), []byte(key))
	c.asking.Forget(key)
	c.absent.add(key, c.now())
	c.forget(s, remote, ref)
	c.prune(s, remote, ref.Collection)
	return nil
}

// outdated makes the next look at a name ask: it was found to mean something else
// than what is stored.
func (c *Catalog) outdated(r Remote, ref backends.Ref) {
	ref.Version = ""
	if !r.atHand() {
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
	c.own.add(c.now(), index.ChildKey(remote, collection))
	gone := index.Encode(index.Entry{Flags: index.Emptied}, backends.Ref{})
	err := s.ApplyOwn(index.KV{Key: index.ChildKey(remote, collection), Value: gone}, index.KV{Key: index.HeaderKey(remote, collection)})
	if err != nil {
		c.opts.Log.Warn("an empty collection could not be forgotten", "remote", remote, "collection", collection, "err", err)
	}
	return err == nil
}
