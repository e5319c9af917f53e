// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/records"
)

// Get returns the record of one image, with Path if the bytes are here. A uri
// without a remote means the local one, or the one other that knows the name.
//
// Errors: those of Resolve and Lookup.
func (v *browser) Get(ctx context.Context, uri string) (Record, error) {
	return v.recordOf(ctx, uri, localRemote)
}

// Find is Get for the other verbs that read: a uri without a remote means the
// default one, or the one other that knows the name.
func (v *browser) Find(ctx context.Context, uri string) (Record, error) {
	return v.recordOf(ctx, uri, v.def)
}

func (v *browser) recordOf(ctx context.Context, uri, without string) (Record, error) {
	r, img, err := v.findFrom(ctx, uri, without)
	if err != nil {
		return Record{}, err
	}
	rec := v.record(r.Name, img)
	rec.Path, err = v.pathOf(ctx, r, img)
	return rec, err
}

// find is Resolve and Lookup for reading.
func (v *browser) find(ctx context.Context, uri string) (catalog.Remote, backends.Image, error) {
	return v.findFrom(ctx, uri, v.def)
}

func (v *browser) findFrom(ctx context.Context, uri, without string) (catalog.Remote, backends.Image, error) {
	r, ref, err := v.resolve(ctx, uri, without, Reading)
	if err != nil {
		return r, backends.Image{}, err
	}
	img, err := v.cat.Lookup(ctx, r.Name, ref)
	return r, img, err
}

// withImage calls use with what uri means, and once more where that turns out to have
// been replaced meanwhile.
func (v *browser) withImage(ctx context.Context, uri string, use func(catalog.Remote, backends.Image) error) error {
	r, img, err := v.find(ctx, uri)
	if err != nil {
		return err
	}
	if err = use(r, img); !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Client == nil {
		return err
	}
	if err = v.cat.Replaced(ctx, r, img, err); !errors.Is(err, backends.ErrChanged) {
		return err
	}
	if r, img, err = v.find(ctx, uri); err != nil {
		return err
	}
	return use(r, img)
}

// openHere opens the file with the image's bytes; it is nil if they are not here
// whole.
func (v *browser) openHere(ctx context.Context, r catalog.Remote, img backends.Image) (*os.File, error) {
	if r.Local() {
		return r.Client.OpenFile(ctx, img)
	}
	s, err := v.cat.State()
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
func (v *browser) pathOf(ctx context.Context, r catalog.Remote, img backends.Image) (string, error) {
	f, err := v.openHere(ctx, r, img)
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
func (v *browser) Pin(ctx context.Context, uri string) (Record, error) {
	return v.setPin(ctx, uri, true)
}

// Unpin is the inverse of Pin.
func (v *browser) Unpin(ctx context.Context, uri string) (Record, error) {
	return v.setPin(ctx, uri, false)
}

func (v *browser) setPin(ctx context.Context, uri string, pinned bool) (Record, error) {
	r, img, err := v.find(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if r.Local() {
		return Record{}, fmt.Errorf("%w: %s is a file of this machine, which nothing evicts", fs.ErrInvalid, uri)
	}
	if err := v.setPinOf(r, img, pinned); err != nil {
		return Record{}, err
	}
	return v.record(r.Name, img), nil
}

func (v *browser) setPinOf(r catalog.Remote, img backends.Image, pinned bool) error {
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	key := cache.KeyOf(r.Name, img)
	if !pinned {
		if err := v.cat.Records().Unpin(key); err != nil {
			return err
		}
		s.Cache.Unpin(key)
		return nil
	}
	if err := v.cat.Records().Pin(records.Pin{Key: key, URI: v.record(r.Name, img).URI}); err != nil {
		return err
	}
	s.Cache.Pin(key)
	return nil
}
