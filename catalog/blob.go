// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// Blob opens an image's bytes. An image opened by name on a remote that cannot
// list is listed from then on. The caller closes it.
//
// Errors: those of cache.Cache.Blob; backends.ErrNotImage for a file without an
// extension that is none; backends.ErrChanged if the tag means another version by
// now, which Lookup returns from then on.
func (c *Catalog) Blob(ctx context.Context, remote string, img backends.Image) (*cache.Blob, error) {
	r, err := c.live(remote)
	if err != nil {
		return nil, err
	}
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	if img.Format == noImage {
		return nil, notImage(r, img)
	}
	b, err := s.Cache.Blob(ctx, r.Client, c.sized(ctx, s, r, img))
	if err == nil {
		b, err = c.sniffed(ctx, s.Store, r, img, b)
	}
	if r.atHand() {
		return b, err
	}
	if err == nil {
		if err = b.Check(ctx); err == nil {
			c.noteOpened(s.Store, r, img, b.Size())
			c.learnFormat(s, r, img)
			return b, nil
		}
		shut(b)
	}
	return nil, c.replaced(ctx, s.Store, r, img, err)
}

// replaced returns backends.ErrChanged if err is because the tag of img means another
// version than that by now; else err. It asks the registry.
func (c *Catalog) replaced(ctx context.Context, s Store, r Remote, img backends.Image, err error) error {
	if img.Ref.Version != "" || !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.doubt(s, r.Name, img.Ref)
	now, asked := c.Lookup(ctx, r.Name, img.Ref)
	if asked != nil || now.Version == img.Version {
		return err
	}
	return &backends.Error{Op: "open", Remote: r.Name, Ref: img.Ref, Err: backends.ErrChanged}
}

// sized returns img with the size that the registry tells if it is asked about this one
// image, where only a listing has told of it: without a size the cache would have to fetch
// the whole at once. A question that fails is no harm.
func (c *Catalog) sized(ctx context.Context, s *State, r Remote, img backends.Image) backends.Image {
	ref := img.Ref
	ref.Version = ""
	if img.Size >= 0 || r.atHand() || s.Cache.InfoOf(r.Client, img).State == cache.Cached {
		return img
	}
	e, ok := readEntry(s.Store, r.Name, ref)
	if !ok || e.image.Version != img.Version || !e.is(fromList) {
		return img
	}
	if e.image.Size < 0 && e.seen.IsZero() {
		now, err := c.ask(ctx, s.Store, r, ref)
		if err != nil || now.Version != img.Version {
			return img
		}
		e.image.Size = now.Size
	}
	img.Size = e.image.Size
	return img
}

// BlobInfo tells how much of an image is here, without touching it. Before the
// state could be opened nothing is.
func (c *Catalog) BlobInfo(remote string, img backends.Image) cache.Info {
	r, unknown := c.Remote(remote)
	if unknown == nil && r.atHand() {
		return cache.Info{Record: cache.Record{Size: img.Size, State: cache.Cached}, Have: max(img.Size, 0)}
	}
	key := cache.KeyOf(remote, img)
	s, err := c.open()
	if err != nil || s.Cache == nil {
		return cache.Info{Record: cache.Record{Key: key, Size: img.Size, State: cache.Remote}}
	}
	if unknown != nil || r.Client == nil {
		return s.Cache.Info(key)
	}
	return s.Cache.InfoOf(r.Client, img)
}

// isShown is readEntry for who only wants to know whether an image is listed.
func isShown(s Store, remote string, ref backends.Ref) bool {
	b, err := s.Get(refKey(remote, ref))
	return err == nil && len(b) >= 2 && b[0] == codecVersion && entry{flags: entryFlags(b[1])}.shown()
}

// noteOpened stores what opening an image taught: that it is of use, and its
// size, if the service did not tell that before.
func (c *Catalog) noteOpened(s Store, r Remote, img backends.Image, size int64) {
	ref := img.Ref
	ref.Version = ""
	if img.Size >= 0 && isShown(s, r.Name, ref) && isKnown(s, r.Name, ref.Collection) {
		return // as nearly always
	}
	unlock := c.lock(r.Name, ref.Collection)
	e, ok := readEntry(s, r.Name, ref)
	learnt := ok && e.image.Size < 0 && size >= 0
	above := ancestors(s, r.Name, ref.Collection, opened)
	if !ok || !e.is(full) || e.image.Version != img.Version || e.shown() && !learnt && len(above) == 0 {
		unlock()
		return // another version than the tag's, or nothing new
	}
	show := !e.shown()
	if show {
		e.flags |= opened
	}
	if learnt {
		e.image.Size = size
	}
	changes := []KV{{imageKey(r.Name, ref), encodeEntry(e, ref)}}
	changes = append(changes, above...)
	err := s.Apply(changes...)
	unlock()
	if err != nil {
		c.opts.Log.Warn("an opened image could not be stored", "remote", r.Name, "image", ref.String(), "err", err)
		return
	}
	if show {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	}
	c.tellAbove(r.Name, ref.Collection, above)
	// A size that was learnt is no change: nobody had believed another.
}

// isKnown reports whether a collection appears in its parent.
func isKnown(s Store, remote, collection string) bool {
	if collection == "" {
		return true
	}
	v, err := s.Get(childKey(remote, collection))
	return err == nil && !emptiedValue(v)
}

// ancestors returns the changes that make a collection appear in its parent, and
// that one in its own, and so on: because the next listing will have them (listed),
// or though none does (opened), as some services tell but a part of what they have.
func ancestors(s Store, remote, collection string, why entryFlags) []KV {
	var changes []KV
	for collection != "" {
		if isKnown(s, remote, collection) {
			break
		}
		changes = append(changes, KV{childKey(remote, collection), encodeEntry(entry{flags: why}, backends.Ref{})})
		collection, _ = parentOf(collection)
	}
	return changes
}

// tellAbove emits that a collection came into as many parents as there are new
// ancestors.
func (c *Catalog) tellAbove(remote, collection string, ancestors []KV) {
	for range ancestors {
		collection, _ = parentOf(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

// doubt makes the next lookup of ref ask: what is stored was found to be old.
func (c *Catalog) doubt(s Store, remote string, ref backends.Ref) {
	ref.Version = ""
	defer c.lock(remote, ref.Collection)()
	e, ok := readEntry(s, remote, ref)
	if !ok || !e.is(full) {
		return
	}
	e.flags &^= full | fromList
	if err := s.Apply(KV{imageKey(remote, ref), encodeEntry(e, ref)}); err != nil {
		c.opts.Log.Warn("a doubt could not be stored", "remote", remote, "image", ref.String(), "err", err)
	}
}
