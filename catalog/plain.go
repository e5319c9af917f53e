// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// A file without an extension is taken for an image by its name, until somebody opens
// it: then its first bytes decide. One that is none is in no listing from then on, and
// is not given out; it is asked about again when it has become another version.

// noImage is the format, of ours alone, of what was found to be no image.
const noImage = "none"

// Glimpse returns what is stored of a file without an extension that a listing showed,
// for who only looks: however old, and without asking. Without a Version only the
// name and the format are known.
func (c *Catalog) Glimpse(remote string, ref backends.Ref) (img backends.Image, ok bool) {
	r, err := c.Remote(remote)
	if err != nil || r.atHand() || ref.Version != "" || ref.Check() != nil {
		return img, false
	}
	s, err := c.store()
	if err != nil {
		return img, false
	}
	e, ok := readEntry(s, remote, ref)
	return e.image, ok && e.is(listed) && backends.IsPlain(e.image.Format)
}

// sniffed returns b if its first bytes are those of an image, or its name says more than
// theirs. Else b is closed, and what was found is stored.
//
// Errors: backends.ErrNotImage; those of cache.Blob.ReadAtContext.
func (c *Catalog) sniffed(ctx context.Context, s Store, r Remote, img backends.Image, b *cache.Blob) (*cache.Blob, error) {
	if !backends.IsPlain(img.Format) {
		return b, nil
	}
	head := make([]byte, min(max(b.Size(), 0), backends.SniffSize))
	n, err := b.ReadAtContext(ctx, head, 0)
	if n == len(head) || errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && backends.Sniff(head[:n]) == "" {
		c.noteNoImage(s, r, img)
		err = notImage(r, img)
	}
	if err != nil {
		shut(b)
		return nil, err
	}
	return b, nil
}

func notImage(r Remote, img backends.Image) error {
	return &backends.Error{Op: "open", Remote: r.Name, Ref: img.Ref,
		Err: fmt.Errorf("%w: it begins neither as SIF nor as squashfs nor as ext3", backends.ErrNotImage)}
}

func (c *Catalog) noteNoImage(s Store, r Remote, img backends.Image) {
	ref := img.Ref
	ref.Version = ""
	unlock := c.lock(r.Name, ref.Collection)
	e, ok := readEntry(s, r.Name, ref)
	if ok = ok && e.is(full) && e.image.Version == img.Version && e.image.Format != noImage; !ok {
		unlock()
		return // it is another version by now
	}
	shown := e.shown()
	e.image.Format = noImage
	err := s.Apply(KV{imageKey(r.Name, ref), encodeEntry(e, ref)})
	unlock()
	if err != nil {
		c.opts.Log.Warn("that a file is no image could not be stored", "remote", r.Name, "file", ref.String(), "err", err)
		return
	}
	c.opts.Log.Info("a file is no image, and listed no more", "remote", r.Name, "file", ref.String())
	if shown {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	}
}
