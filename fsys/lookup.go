// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
)

// Lookup returns what name means in d for that caller: the same for all callers, except
// for the writers of a draft and those that just got ErrRetry.
//
// Besides the listed names it accepts those of the other Names, "image:tag" and "image"
// without extension, and "image:tag@version", with or without extension.
//
// Errors: fs.ErrNotExist, also for names that nothing can have; those of
// backends.Backend.Stat.
func (d *Dir) Lookup(ctx context.Context, name string, who Caller) (Node, error) {
	if d.finder != "" {
		return d.find(ctx, name)
	}
	if d.remote == "" {
		if child := d.fs.finder(name); child != nil {
			return child, nil
		}
		if !d.fs.cat.HasRemote(name) {
			return nil, backends.NotFound("no remote is named %q", name)
		}
		return &Dir{fs: d.fs, remote: name}, nil
	}
	if len(name) > MaxName {
		return nil, ErrNameTooLong
	}
	if draft := d.draftOf(name, who); draft != nil {
		return draft, nil
	}
	if draft := d.draft(name); draft != nil && draft.shadows() {
		return draft, nil
	}
	if child := d.toolDir(name); child != nil && d.fs.hasToolDir(child) {
		return child, nil
	}
	if d.tool != "" || isTemporary(name) && !hasNoTag(name) {
		return nil, fs.ErrNotExist
	}
	if _, err := d.fs.remote(d.remote); err != nil {
		return nil, err
	}
	node, err := d.lookupRemote(ctx, name)
	if errors.Is(err, fs.ErrInvalid) {
		err = backends.NotFound("%v", err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if draft := d.draft(name); draft != nil && draft.visible() {
			return draft, nil
		}
	}
	if isUnavailable(err) && (isTemporary(name) || d.assumeFree(ctx, name)) {
		return nil, backends.NotFound("it was not listed before %v", err)
	}
	return node, err
}

func isUnavailable(err error) bool {
	return errors.Is(err, backends.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// assumeFree reports whether a name is taken for free although the registry could not be
// asked: with --push=async, copying to a name that was never listed works while the
// registry is down. The kernel looks up a name before it creates a file. Publishing finds
// out whether the name is taken.
func (d *Dir) assumeFree(ctx context.Context, name string) bool {
	r, remoteErr := d.fs.writableRemote(d.remote)
	if remoteErr != nil || !r.Policy.Async || !r.Client.Caps().Has(backends.CanList) {
		return false
	}
	for e, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		switch {
		case err != nil:
			return false
		case e.Collection != "" && dirName(lastPart(e.Collection)) == name:
			return false
		case e.Collection == "" && slices.Contains(namesOf(e.Image.Ref), name):
			return false
		}
	}
	return true
}

// hasNoTag reports whether a name without extension may be an image's name alone.
func hasNoTag(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.Contains(name, ":")
}

// lookupRemote looks a name up in the catalogue. A name without ":" or "@" is tried as a
// directory first, one with a plus as an image first.
func (d *Dir) lookupRemote(ctx context.Context, name string) (Node, error) {
	if isShortened(name) {
		if node, err := d.lookupShort(ctx, name); node != nil || err != nil {
			return node, err
		}
	}
	plus := isPlusName(name)
	var dirErr error
	if !plus && !strings.ContainsAny(name, ":@") && !d.isBare(name) {
		var child *Dir
		if child, dirErr = d.child(ctx, name); child != nil {
			return child, nil
		}
	}
	img, err := d.lookupImage(ctx, name)
	if err == nil {
		return img, nil
	}
	if plus && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)) {
		if child, _ := d.child(ctx, name); child != nil {
			return child, nil
		}
	}
	if dirErr != nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)) {
		return nil, dirErr // no image has the name, but whether a collection has is not known
	}
	return nil, err
}

// child returns the collection of that name; nil if there is none.
func (d *Dir) child(ctx context.Context, name string) (*Dir, error) {
	part, err := parseDir(name)
	if err != nil {
		return nil, nil //nolint:nilerr // such a name is not a directory's, which is no failure
	}
	child := &Dir{fs: d.fs, remote: d.remote, collection: join(d.collection, part)}
	ok, err := d.fs.cat.IsCollection(ctx, d.remote, child.collection)
	if !ok && d.fs.holdsFiles(child) { // its last image was removed, but there are files with temporary names
		d.keepCollection(ctx, child.collection)
		return child, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) || err == nil && !ok {
		return nil, nil
	}
	// If the registry cannot list, every name may be a collection's. A name that new files
	// have is then taken for none.
	if (isTemporary(name) || isPlusName(name)) && !d.fs.cat.IsListed(d.remote, child.collection) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return child, nil
}

// LookupListed returns the image that name means as the last listing showed it, without
// a request, if the file has no extension. Opening an image of which a listing told the
// name alone sends a request, and then gives ErrRetry.
func (d *Dir) LookupListed(name string) (*Image, bool) {
	if d.remote == "" || d.tool != "" || len(name) > MaxName || d.draft(name) != nil || d.toolDir(name) != nil {
		return nil, false
	}
	ref, _, err := parseFile(name)
	if err != nil {
		return nil, false
	}
	ref.Collection = d.collection
	img, ok := d.fs.cat.Glimpse(d.remote, ref)
	if !ok {
		return nil, false
	}
	return newImage(d.fs, d.remote, img), true
}

// isBare reports whether a name without a tag is known to be that of an image.
func (d *Dir) isBare(name string) bool {
	img, ok := d.LookupListed(name)
	return ok && img.img.Format == backends.FormatBare
}

func (d *Dir) lookupImage(ctx context.Context, name string) (*Image, error) {
	ref, format, err := parseFile(name)
	if err != nil {
		return nil, err
	}
	ref.Collection = d.collection
	return d.image(ctx, ref, format)
}

// image returns the image of ref, in that format if it has several.
func (d *Dir) image(ctx context.Context, ref backends.Ref, format string) (*Image, error) {
	img, err := d.fs.cat.Lookup(ctx, d.remote, ref)
	if err == nil {
		img, err = d.fs.cat.As(ctx, d.remote, img, format)
	}
	if err != nil {
		return nil, err
	}
	return newImage(d.fs, d.remote, img), nil
}

// mustMatch returns the image of d whose bytes data must have to be published: nil if it
// may have any, or if that is not known before publishing.
func (d *Dir) mustMatch(ctx context.Context, data *spool.Draft) *Image {
	target := data.Info().Target
	if target.Replaces != spool.OnlySame {
		return nil
	}
	img, err := d.image(ctx, target.Ref, "")
	if err != nil {
		return nil
	}
	return img
}

// lookupShort finds the image or collection whose listed name was shortened to name; nil
// if there is none.
func (d *Dir) lookupShort(ctx context.Context, name string) (Node, error) {
	for e, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		if err != nil {
			return nil, err
		}
		switch {
		case e.Collection != "" && dirName(lastPart(e.Collection)) == name:
			return &Dir{fs: d.fs, remote: d.remote, collection: e.Collection}, nil
		case e.Collection == "" && isListedName(name, e.Image):
			return d.image(ctx, e.Image.Ref, e.Image.Format)
		case catalog.HasForms(&e.Image):
			e.Image.Format = backends.FormatArchive
			if isListedName(name, e.Image) {
				return d.image(ctx, e.Image.Ref, e.Image.Format)
			}
		}
	}
	return nil, nil
}

// isListedName reports whether an image is listed under that name, as Names can be.
func isListedName(name string, img backends.Image) bool {
	return name == NamesColon.fileName(img.Ref, img.Format) || name == NamesPlus.fileName(img.Ref, img.Format)
}

func lastPart(collection string) string {
	return collection[strings.LastIndexByte(collection, '/')+1:]
}

// keepCollection keeps the directory of a collection that has lost its last image.
func (d *Dir) keepCollection(ctx context.Context, collection string) {
	if err := d.fs.cat.Keep(ctx, d.remote, collection); err != nil {
		d.fs.opts.Log.Warn("an emptied collection could not be kept", "remote", d.remote, "collection", collection, "err", err)
	}
}
