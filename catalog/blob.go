// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// blobs is the layer of bytes: it opens images and stores what it learns from them.
type blobs struct{ images }

// Blob opens an image's bytes. An image opened by name on a remote that cannot
// list is listed from then on. The caller closes it.
//
// Errors: those of cache.Cache.Blob; backends.ErrNotImage for a file without an
// extension that is none; backends.ErrChanged if the tag means another version by
// now, which Lookup returns from then on.
func (c *blobs) Blob(ctx context.Context, remote string, img backends.Image) (*cache.Blob, error) {
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
	if r.InPlace(img) {
		return b, err
	}
	if err == nil {
		if err = b.Check(ctx); err == nil {
			c.noteOpened(s.Index, r, img, b.Size())
			if r.ByHost && c.hosts.opened(r.Name) {
				c.watchers.emit(Event{Kind: ListingChanged})
			}
			c.learnFormat(s, r, img)
			return b, nil
		}
		shut(b)
	}
	c.Failed(r.Name, img, err)
	return nil, c.Replaced(ctx, r, img, err)
}

// Replaced returns backends.ErrChanged if err is because the tag of img means another
// version than that by now; else err. It asks the registry.
func (c *blobs) Replaced(ctx context.Context, r Remote, img backends.Image, err error) error {
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

// sized returns img with its size. Some listings do not have it; then the registry is
// asked about this one image, because without a size the cache has to fetch all of it at
// once. If that fails, img is returned as it is.
func (c *blobs) sized(ctx context.Context, s *State, r Remote, img backends.Image) backends.Image {
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

// noteOpened stores what opening an image showed: that it exists, though no listing may
// have it, and its size, if that was not known.
func (c *blobs) noteOpened(s *index.Index, r Remote, img backends.Image, size int64) {
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
		return // it is not the version of the tag, or nothing is new
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
	// A new size is not reported as a change: no other one was shown before.
}

// Show lists an image from then on, whether or not the registry's listing has it.
//
// Errors: catalog.Options.State's.
func (c *blobs) Show(r Remote, img backends.Image) error {
	if r.Local() {
		return nil
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	c.noteOpened(s, r, img, img.Size)
	if r.ByHost && c.hosts.opened(r.Name) {
		c.watchers.emit(Event{Kind: ListingChanged})
	}
	return nil
}

// shut closes what was only read: its error has nothing to say.
func shut(c io.Closer) { c.Close() }

// A file without an extension counts as an image until it is opened: then its first bytes
// decide. If it is none, it is no longer listed and cannot be opened, until it has another
// version.

// Glimpse returns what is stored of a file without an extension that a listing showed,
// however old it is, and without asking the registry. Without a Version only the name and
// the format are known.
func (c *blobs) Glimpse(remote string, ref backends.Ref) (img backends.Image, ok bool) {
	r, err := c.Remote(remote)
	if err != nil || r.Local() || ref.Version != "" || ref.Check() != nil {
		return img, false
	}
	if img, ok := c.Pinned(remote, ref); ok && backends.IsPlain(img.Format) {
		return img, true
	}
	s, err := c.store()
	if err != nil {
		return img, false
	}
	e, ok := s.Entry(remote, ref)
	return e.Image, ok && e.Is(index.InListing) && backends.IsPlain(e.Image.Format)
}

// sniffed returns b if its first bytes are those of an image, or if its name has an
// extension. Else it closes b, and stores that the file is no image.
//
// Errors: backends.ErrNotImage; those of cache.Blob.ReadAtContext.
func (c *blobs) sniffed(ctx context.Context, s *index.Index, r Remote, img backends.Image, b *cache.Blob) (*cache.Blob, error) {
	if !backends.IsPlain(img.Format) {
		return b, nil
	}
	format, err := sniff(ctx, b)
	if err == nil && format == "" {
		if c.noteFormat(s, r, img, index.NoImage) {
			c.opts.Log.Info("a file is no image, and listed no more", "remote", r.Name, "file", img.Ref.String())
		}
		err = notImage(r, img)
	}
	if err != nil {
		shut(b)
		return nil, err
	}
	return b, nil
}

// sniff returns what the first bytes of b are, "" if they are of no image.
// Errors: those of cache.Blob.ReadAtContext.
func sniff(ctx context.Context, b *cache.Blob) (format string, err error) {
	head := make([]byte, min(max(b.Size(), 0), backends.SniffSize))
	n, err := b.ReadAtContext(ctx, head, 0)
	if n == len(head) || errors.Is(err, io.EOF) {
		err = nil
	}
	return backends.Sniff(head[:n]), err
}

// learnFormat finds out, in the background, the format of an image that was opened, if
// its service does not keep one: the extension of its name in the tree depends on it. The
// program that opened the image reads the first bytes anyway.
func (c *blobs) learnFormat(s *State, r Remote, img backends.Image) {
	if img.Format != "" {
		return
	}
	c.tasks.start(func(ctx context.Context) {
		b, err := s.Cache.Blob(ctx, r.Client, img)
		if err != nil {
			return // the program that opened it gets the error
		}
		defer shut(b)
		if format, err := sniff(ctx, b); err == nil && format != "" {
			c.noteFormat(s.Index, r, img, format)
		}
	})
}

func notImage(r Remote, img backends.Image) error {
	return &backends.Error{Op: "open", Remote: r.Name, Ref: img.Ref,
		Err: fmt.Errorf("%w: it begins neither as SIF nor as squashfs nor as ext3", backends.ErrNotImage)}
}

// noteFormat stores what an image was found to be, and reports whether that is new.
func (c *blobs) noteFormat(s *index.Index, r Remote, img backends.Image, format string) bool {
	ref := img.Ref
	ref.Version = ""
	unlock := c.lock(r.Name, ref.Collection)
	e, ok := s.Entry(r.Name, ref)
	if ok = ok && e.Is(index.Full) && e.Image.Version == img.Version && e.Image.Format != format; !ok {
		unlock()
		return false // it is another version by now
	}
	was := e
	e.Image.Format = format
	err := s.Apply(index.KV{Key: index.ImageKey(r.Name, ref), Value: index.Encode(e, ref)})
	unlock()
	if err != nil {
		c.opts.Log.Warn("what a file is could not be stored", "remote", r.Name, "file", ref.String(), "err", err)
		return false
	}
	if was.Shown() && (format == index.NoImage || renamed(was, e)) {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	}
	return true
}
