// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
)

// A reader looks up single images, and reads what is in them.
type reader struct{ browser }

// Get returns the record of one image, with Path if the bytes are here. A uri
// without a remote means the local one, or the one other that knows the name.
//
// Errors: those of Resolve and Lookup.
func (v *reader) Get(ctx context.Context, uri string) (Record, error) {
	return v.recordOf(ctx, uri, localRemote)
}

// Find is Get for the other verbs that read: a uri without a remote means the
// default one, or the one other that knows the name.
func (v *reader) Find(ctx context.Context, uri string) (Record, error) {
	return v.recordOf(ctx, uri, v.def)
}

func (v *reader) recordOf(ctx context.Context, uri, without string) (Record, error) {
	r, img, err := v.findFrom(ctx, uri, without)
	if err != nil {
		return Record{}, err
	}
	rec := v.record(r.Name, img)
	rec.Path, err = v.pathOf(ctx, r, img)
	return rec, err
}

// find is Resolve and Lookup for reading.
func (v *reader) find(ctx context.Context, uri string) (catalog.Remote, backends.Image, error) {
	return v.findFrom(ctx, uri, v.def)
}

func (v *reader) findFrom(ctx context.Context, uri, without string) (catalog.Remote, backends.Image, error) {
	r, ref, err := v.resolve(ctx, uri, without, Reading)
	if err != nil {
		return r, backends.Image{}, err
	}
	img, err := v.cat.Lookup(ctx, r.Name, ref)
	if err == nil {
		_, format := backends.CutExt(uri)
		img, err = v.cat.As(ctx, r.Name, img, format)
	}
	return r, img, err
}

// likeFile adds to a URI the extension of the file that is to be written, if it has none: what
// a container image is copied as, that tells.
func likeFile(uri, file string) string {
	_, format := backends.CutExt(uri)
	if _, wanted := backends.CutExt(file); format == "" && wanted == backends.FormatArchive {
		uri += backends.Ext(wanted)
	}
	return uri
}

// withImage calls use with the image that uri means, and once more if that was replaced
// meanwhile.
func (v *reader) withImage(ctx context.Context, uri string, use func(catalog.Remote, backends.Image) error) error {
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
func (v *reader) openHere(ctx context.Context, r catalog.Remote, img backends.Image) (*os.File, error) {
	if r.InPlace(img) {
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
func (v *reader) pathOf(ctx context.Context, r catalog.Remote, img backends.Image) (string, error) {
	f, err := v.openHere(ctx, r, img)
	if err != nil || f == nil {
		return "", err
	}
	return f.Name(), f.Close()
}
