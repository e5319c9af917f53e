// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/records"
)

// Get returns the record of one image, with Path if the bytes are here. A uri
// without a remote means the local one, or the one other that knows the name.
//
// Errors: those of Resolve and Lookup.
func (c *Catalog) Get(ctx context.Context, uri string) (Record, error) {
	return c.recordOf(ctx, uri, localRemote)
}

// Find is Get for the other verbs that read: a uri without a remote means the
// default one, or the one other that knows the name.
func (c *Catalog) Find(ctx context.Context, uri string) (Record, error) {
	return c.recordOf(ctx, uri, c.opts.Default)
}

func (c *Catalog) recordOf(ctx context.Context, uri, without string) (Record, error) {
	r, img, err := c.findFrom(ctx, uri, without)
	if err != nil {
		return Record{}, err
	}
	rec := c.record(r.Name, img)
	rec.Path, err = c.pathOf(ctx, r, img)
	return rec, err
}

// find is Resolve and Lookup for reading.
func (c *Catalog) find(ctx context.Context, uri string) (Remote, backends.Image, error) {
	return c.findFrom(ctx, uri, c.opts.Default)
}

func (c *Catalog) findFrom(ctx context.Context, uri, without string) (Remote, backends.Image, error) {
	r, ref, err := c.resolve(ctx, uri, without, true)
	if err != nil {
		return r, backends.Image{}, err
	}
	img, err := c.Lookup(ctx, r.Name, ref)
	return r, img, err
}

// withImage calls use with what uri means, and once more where that turns out to have
// been replaced meanwhile.
func (c *Catalog) withImage(ctx context.Context, uri string, use func(Remote, backends.Image) error) error {
	r, img, err := c.find(ctx, uri)
	if err != nil {
		return err
	}
	if err = use(r, img); !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, stateErr := c.store()
	if stateErr != nil || r.Client == nil {
		return err
	}
	if err = c.replaced(ctx, s, r, img, err); !errors.Is(err, backends.ErrChanged) {
		return err
	}
	if r, img, err = c.find(ctx, uri); err != nil {
		return err
	}
	return use(r, img)
}

// openHere opens the file with the image's bytes; it is nil if they are not here
// whole.
func (c *Catalog) openHere(ctx context.Context, r Remote, img backends.Image) (*os.File, error) {
	if r.atHand() {
		return r.Client.OpenFile(ctx, img)
	}
	s, err := c.open()
	if err != nil || s.Cache == nil {
		return nil, err
	}
	path, ok := s.Cache.Path(cache.KeyOf(r.Name, img))
	if !ok {
		return nil, nil
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // evicted
	}
	if err != nil {
		return nil, backends.DiskError("read "+path, err)
	}
	return f, nil
}

// pathOf is the name of the file that openHere opens, "" if there is none.
func (c *Catalog) pathOf(ctx context.Context, r Remote, img backends.Image) (string, error) {
	f, err := c.openHere(ctx, r, img)
	if err != nil || f == nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// Pin keeps an image that uri names now from eviction, whether it is here yet or
// not. Unpin ends that. Neither downloads anything.
//
// Errors: those of Resolve and Lookup; fs.ErrInvalid for an image that is a
// local file anyway; those of the local disk.
func (c *Catalog) Pin(ctx context.Context, uri string) (Record, error) {
	return c.setPin(ctx, uri, true)
}

// Unpin is the inverse of Pin.
func (c *Catalog) Unpin(ctx context.Context, uri string) (Record, error) {
	return c.setPin(ctx, uri, false)
}

func (c *Catalog) setPin(ctx context.Context, uri string, pinned bool) (Record, error) {
	r, img, err := c.find(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if r.atHand() {
		return Record{}, fmt.Errorf("%w: %s is a file of this machine, which nothing evicts", fs.ErrInvalid, uri)
	}
	if err := c.setPinOf(r, img, pinned); err != nil {
		return Record{}, err
	}
	return c.record(r.Name, img), nil
}

func (c *Catalog) setPinOf(r Remote, img backends.Image, pinned bool) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	key := cache.KeyOf(r.Name, img)
	if !pinned {
		if err := c.records.Unpin(key); err != nil {
			return err
		}
		s.Cache.Unpin(key)
		return nil
	}
	if err := c.records.Pin(records.Pin{Key: key, URI: c.record(r.Name, img).URI}); err != nil {
		return err
	}
	s.Cache.Pin(key)
	return nil
}
