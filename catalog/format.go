// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// A file without an extension is taken for an image by its name, until somebody opens
// it: then its first bytes decide. One that is none is in no listing from then on, and
// is not given out; it is asked about again when it has become another version.

// Glimpse returns what is stored of a file without an extension that a listing showed,
// for who only looks: however old, and without asking. Without a Version only the
// name and the format are known.
func (c *Catalog) Glimpse(remote string, ref backends.Ref) (img backends.Image, ok bool) {
	r, err := c.Remote(remote)
	if err != nil || r.Local() || ref.Version != "" || ref.Check() != nil {
		return img, false
	}
	s, err := c.store()
	if err != nil {
		return img, false
	}
	e, ok := s.Entry(remote, ref)
	return e.Image, ok && e.Is(index.InListing) && backends.IsPlain(e.Image.Format)
}

// sniffed returns b if its first bytes are those of an image, or its name says more than
// theirs. Else b is closed, and what was found is stored.
//
// Errors: backends.ErrNotImage; those of cache.Blob.ReadAtContext.
func (c *Catalog) sniffed(ctx context.Context, s *index.Index, r Remote, img backends.Image, b *cache.Blob) (*cache.Blob, error) {
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

// learnFormat looks, in the background, at an image that was opened and of which the
// service keeps no format: its name in the tree goes by that. Who opened it reads the
// first bytes anyway.
func (c *Catalog) learnFormat(s *State, r Remote, img backends.Image) {
	if img.Format != "" {
		return
	}
	c.tasks.start(func(ctx context.Context) {
		b, err := s.Cache.Blob(ctx, r.Client, img)
		if err != nil {
			return // whoever opened it is told
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
func (c *Catalog) noteFormat(s *index.Index, r Remote, img backends.Image, format string) bool {
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
