// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// Blob opens an image's bytes. An image opened by name on a remote that cannot
// list is listed from then on. The caller closes it.
//
// Errors: those of cache.Cache.Blob; backends.ErrNotImage for a file without an
// extension that is none; backends.ErrChanged if the tag means another version by
// now, which Lookup returns from then on.
func (c *Catalog) Blob(ctx context.Context, remote string, img backends.Image) (*cache.Blob, error) {
	r, err := c.Live(remote)
	if err != nil {
		return nil, err
	}
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	if img.Format == index.NoImage {
		return nil, notImage(r, img)
	}
	b, err := s.Cache.Blob(ctx, r.Client, c.sized(ctx, s, r, img))
	if err == nil {
		b, err = c.sniffed(ctx, s.Index, r, img, b)
	}
	if r.Local() {
		return b, err
	}
	if err == nil {
		if err = b.Check(ctx); err == nil {
			c.noteOpened(s.Index, r, img, b.Size())
			c.learnFormat(s, r, img)
			return b, nil
		}
		shut(b)
	}
	return nil, c.Replaced(ctx, r, img, err)
}

// Replaced returns backends.ErrChanged if err is because the tag of img means another
// version than that by now; else err. It asks the registry.
func (c *Catalog) Replaced(ctx context.Context, r Remote, img backends.Image, err error) error {
	if img.Ref.Version != "" || !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, stateErr := c.store()
	if stateErr != nil {
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
	if img.Size >= 0 || r.Local() || s.Cache.InfoOf(r.Client, img).State == cache.Cached {
		return img
	}
	e, ok := s.Index.Entry(r.Name, ref)
	if !ok || e.Image.Version != img.Version || !e.Is(index.FromList) {
		return img
	}
	if e.Image.Size < 0 && e.Seen.IsZero() {
		now, err := c.ask(ctx, s.Index, r, ref)
		if err != nil || now.Version != img.Version {
			return img
		}
		e.Image.Size = now.Size
	}
	img.Size = e.Image.Size
	return img
}

// BlobInfo tells how much of an image is here, without touching it. Before the
// state could be opened nothing is.
func (c *Catalog) BlobInfo(remote string, img backends.Image) cache.Info {
	r, unknown := c.Remote(remote)
	if unknown == nil && r.Local() {
		return cache.Info{Record: cache.Record{Size: img.Size, State: cache.Cached}, Have: max(img.Size, 0)}
	}
	key := cache.KeyOf(remote, img)
	s, err := c.State()
	if err != nil || s.Cache == nil {
		return cache.Info{Record: cache.Record{Key: key, Size: img.Size, State: cache.Remote}}
	}
	if unknown != nil || r.Client == nil {
		return s.Cache.Info(key)
	}
	return s.Cache.InfoOf(r.Client, img)
}

// noteOpened stores what opening an image taught: that it is of use, and its
// size, if the service did not tell that before.
func (c *Catalog) noteOpened(s *index.Index, r Remote, img backends.Image, size int64) {
	ref := img.Ref
	ref.Version = ""
	if img.Size >= 0 && s.Shown(r.Name, ref) && s.Known(r.Name, ref.Collection) {
		return // as nearly always
	}
	unlock := c.lock(r.Name, ref.Collection)
	e, ok := s.Entry(r.Name, ref)
	learnt := ok && e.Image.Size < 0 && size >= 0
	above := s.Ancestors(r.Name, ref.Collection, index.ByName)
	if !ok || !e.Is(index.Full) || e.Image.Version != img.Version || e.Shown() && !learnt && len(above) == 0 {
		unlock()
		return // another version than the tag's, or nothing new
	}
	show := !e.Shown()
	if show {
		e.Flags |= index.ByName
	}
	if learnt {
		e.Image.Size = size
	}
	changes := []index.KV{{Key: index.ImageKey(r.Name, ref), Value: index.Encode(e, ref)}}
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

// tellAbove emits that a collection came into as many parents as there are new
// ancestors.
func (c *Catalog) tellAbove(remote, collection string, ancestors []index.KV) {
	for range ancestors {
		collection, _ = index.Parent(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

// doubt makes the next lookup of ref ask: what is stored was found to be old.
func (c *Catalog) doubt(s *index.Index, remote string, ref backends.Ref) {
	ref.Version = ""
	defer c.lock(remote, ref.Collection)()
	e, ok := s.Entry(remote, ref)
	if !ok || !e.Is(index.Full) {
		return
	}
	e.Flags &^= index.Full | index.FromList
	if err := s.Apply(index.KV{Key: index.ImageKey(remote, ref), Value: index.Encode(e, ref)}); err != nil {
		c.opts.Log.Warn("a doubt could not be stored", "remote", remote, "image", ref.String(), "err", err)
	}
}

// shut closes what was only read: its error has nothing to say.
func shut(c io.Closer) { c.Close() }
