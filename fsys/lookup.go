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
)

// Lookup returns what name means in d for that caller: mostly the same for all,
// but for who was just told ErrRetry.
//
// Besides the listed names it knows those of the other Names, "image:tag" and
// "image" without extension, and "image:tag@version", with or without.
//
// Errors: fs.ErrNotExist, also for names that nothing can have; those of
// backends.Backend.Stat.
func (d *Dir) Lookup(ctx context.Context, name string, who Caller) (Node, error) {
	if d.remote == "" {
		if _, err := d.fs.cat.Remote(name); err != nil {
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

// free reports whether a name counts as free though the registry could not be
// asked: where uploads are published later, a registry that is down keeps nobody
// from copying to a name that it never listed. The kernel asks for the name
// before it creates the file. Publishing finds out whether the name is taken.
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

// mayBeShorthand tells "image" from the other names without extension.
func hasNoTag(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.Contains(name, ":")
}

// lookupRemote finds what the catalogue knows. Names without a separator are first
// taken for directories, those with a plus last.
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
		return nil, dirErr // that no image has the name is no answer to whether a collection has
	}
	return nil, err
}

// child returns the collection that name stands for; nil if there is none.
func (d *Dir) child(ctx context.Context, name string) (*Dir, error) {
	part, err := parseDir(name)
	if err != nil {
		return nil, nil //nolint:nilerr // such a name is not a directory's, which is no failure
	}
	child := &Dir{fs: d.fs, remote: d.remote, collection: join(d.collection, part)}
	ok, err := d.fs.cat.IsCollection(ctx, d.remote, child.collection)
	if !ok && d.fs.holdsFiles(child) { // the registry's last image went; files with temporary names are still there
		d.keepCollection(ctx, child.collection)
		return child, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) || err == nil && !ok {
		return nil, nil
	}
	// Where the registry does not list, every name may be a collection's. One that a
	// new file can have is none then.
	if (isTemporary(name) || isPlusName(name)) && !d.fs.cat.IsListed(d.remote, child.collection) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return child, nil
}

// Glimpse returns the image that name means, as a listing showed it, where that is a
// file without an extension: for who only looks, without a request. Opening what is
// only known by its name asks, and is ErrRetry.
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
	ref, _, err := parseFile(name)
	if err != nil {
		return nil, err
	}
	ref.Collection = d.collection
	return d.image(ctx, ref)
}

func (d *Dir) image(ctx context.Context, ref backends.Ref) (*Image, error) {
	img, err := d.fs.cat.Lookup(ctx, d.remote, ref)
	if err != nil {
		return nil, err
	}
	return newImage(d.fs, d.remote, img), nil
}

// only returns the image of d whose bytes alone data may have when it is published:
// nil if it may have any, or if that is not known before it is published.
func (d *Dir) mustMatch(ctx context.Context, data *spool.Draft) *Image {
	target := data.Info().Target
	if target.Replaces != spool.OnlySame {
		return nil
	}
	img, err := d.image(ctx, target.Ref)
	if err != nil {
		return nil
	}
	return img
}

// lookupShort finds the listed name that was shortened to name; nil if none was.
func (d *Dir) lookupShort(ctx context.Context, name string) (Node, error) {
	for e, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		if err != nil {
			return nil, err
		}
		switch {
		case e.Collection != "" && dirName(lastPart(e.Collection)) == name:
			return &Dir{fs: d.fs, remote: d.remote, collection: e.Collection}, nil
		case e.Collection == "" && isListedName(name, e.Image):
			return d.image(ctx, e.Image.Ref)
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

// keep lets a directory stay, also without its last image.
func (d *Dir) keepCollection(ctx context.Context, collection string) {
	if err := d.fs.cat.Keep(ctx, d.remote, collection); err != nil {
		d.fs.opts.Log.Warn("an emptied collection could not be kept", "remote", d.remote, "collection", collection, "err", err)
	}
}
