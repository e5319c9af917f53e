// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Record makes uri, without a remote one of the local catalogue, name the image at a URL,
// or in a file outside of the store. Nothing is copied: it is read there when it is opened.
// With force a record of that name is replaced.
//
// Errors: those of Resolve and of backends.Recorder.
func (v *transfers) Record(ctx context.Context, location, uri string, force bool) (Record, error) {
	r, ref, err := v.resolve(ctx, uri, localRemote, Writing)
	if err == nil && r.Client == nil {
		err = r.Unopened()
	}
	if err != nil {
		return Record{}, err
	}
	replaces := ""
	if force {
		replaces = backends.ReplaceAny
	}
	img, err := r.Client.Record(ctx, ref, location, replaces)
	if errors.Is(err, fs.ErrExist) && !force {
		err = fmt.Errorf("%w (--force replaces a record)", err)
	}
	if err != nil {
		return Record{}, err
	}
	v.cat.Published(r, ref, img)
	return v.recordAt(ctx, r, img)
}

// Note has the image that uri names, on a remote that need not list it, in the catalogue
// from then on, as if it had been opened. Nothing of it is downloaded.
//
// Errors: those of Resolve and Lookup.
func (v *transfers) Note(ctx context.Context, uri string) (Record, error) {
	r, img, err := v.find(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if err := v.cat.Show(r, img); err != nil {
		return Record{}, err
	}
	return v.recordAt(ctx, r, img)
}

func (v *transfers) recordAt(ctx context.Context, r catalog.Remote, img backends.Image) (Record, error) {
	rec := v.record(r.Name, img)
	var err error
	rec.Path, err = v.pathOf(ctx, r, img)
	return rec, err
}

// MoveOut moves the file of an image out of the local store, to a path where nothing is
// yet or into a directory. The image keeps its name, and is read where it is.
//
// Errors: those of Resolve and of backends.Recorder; fs.ErrInvalid if there is no such
// directory.
func (v *transfers) MoveOut(ctx context.Context, uri, to string) (Record, error) {
	r, img, err := v.named(ctx, uri, localRemote)
	if err != nil {
		return Record{}, err
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, backends.EscapePart(img.Ref.Name)+":"+backends.EscapePart(img.Ref.Tag)+backends.Ext(img.Format))
	}
	if info, err := os.Stat(filepath.Dir(to)); err != nil || !info.IsDir() {
		return Record{}, fmt.Errorf("mv %s: %w: there is no directory %s", uri, fs.ErrInvalid, filepath.Dir(to))
	}
	moved, err := r.Client.MoveOut(ctx, img, to)
	if err != nil {
		return Record{}, err
	}
	v.cat.Published(r, moved.Ref, moved)
	return v.recordAt(ctx, r, moved)
}

// Rename gives an image another name within its remote. With force an image of that name
// is replaced.
//
// Errors: those of Resolve and uploads.Uploads.Move; fs.ErrInvalid for a name on another
// remote; fs.ErrExist.
func (v *transfers) Rename(ctx context.Context, from, to string, force bool) (Record, error) {
	r, img, err := v.named(ctx, from, localRemote)
	if err != nil {
		return Record{}, err
	}
	there, ref, err := v.resolve(ctx, to, r.Name, Writing)
	if err != nil {
		return Record{}, err
	}
	img.Ref.Version, ref.Version = "", ""
	switch {
	case there.Name != r.Name:
		return Record{}, fmt.Errorf("rename %s: %w: %s is on another remote", from, fs.ErrInvalid, to)
	case ref == img.Ref:
		return Record{}, backends.Saying(fs.ErrExist, "rename %s: that is its name already", from)
	}
	err = v.uploads.Move(ctx, img, uploads.Destination{Remote: r.Name, Ref: ref, Format: img.Format, Exclusive: !force})
	if errors.Is(err, fs.ErrExist) && !force {
		err = fmt.Errorf("%w (--force replaces it)", err)
	}
	if err != nil {
		return Record{}, err
	}
	now, err := v.cat.Lookup(ctx, r.Name, ref)
	if err != nil {
		return Record{}, err
	}
	return v.recordAt(ctx, r, now)
}

// RemoveFile is Remove, and removes the file of a local image too where that is outside of
// the store.
func (v *transfers) RemoveFile(ctx context.Context, uri, means string) (Record, error) {
	rec, err := v.Remove(ctx, uri, means)
	if err != nil || rec.Remote != localRemote {
		return rec, err
	}
	u, err := url.Parse(rec.URL)
	if err != nil || u.Scheme != "file" {
		return rec, nil //nolint:nilerr // it has no file
	}
	if err := os.Remove(filepath.FromSlash(u.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rec, backends.DiskError("the record is gone, but the file stays", err)
	}
	return rec, nil
}

// ImportClient takes over what the database of the sregistry client knows: see
// backends.Recorder.Import.
func (v *transfers) ImportClient(ctx context.Context, dry bool) iter.Seq2[backends.Imported, error] {
	return func(yield func(backends.Imported, error) bool) {
		r, err := v.cat.Live(localRemote)
		if err != nil {
			yield(backends.Imported{}, err)
			return
		}
		for step, err := range r.Client.Import(ctx, dry) {
			if !yield(step, err) {
				return
			}
		}
	}
}
