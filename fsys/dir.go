// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// A Dir is a directory: the root (no Remote), a remote's top (no Collection),
// a collection, or one that a tool made below it (tooldir.go). It holds no state of
// its own.
type Dir struct {
	fs         *FS
	remote     string
	collection string
	tool       string // path of a tool's directory, below the collection
}

// Remote returns the name of the remote, "" for the root.
func (d *Dir) Remote() string { return d.remote }

// Collection returns the full path of the collection, "" at a remote's top.
func (d *Dir) Collection() string { return d.collection }

// Same reports whether d and other stand for the same directory.
func (d *Dir) Same(other *Dir) bool {
	return d.remote == other.remote && d.collection == other.collection && d.tool == other.tool
}

// Attr implements Node.
func (d *Dir) Attr() Attr {
	mode := fs.ModeDir | 0o555
	if r, err := d.fs.cat.Remote(d.remote); d.remote != "" && err == nil && d.fs.writable(r) {
		mode |= 0o200
	}
	return Attr{Ino: d.ino(), Mode: mode, ModTime: d.fs.started}
}

func (d *Dir) ino() uint64 {
	if d.remote == "" {
		return 1
	}
	if d.tool != "" {
		return inode("tool's dir", d.remote, d.collection, d.tool)
	}
	return inode("dir", d.remote, d.collection)
}

// Fresh reports whether names in d can change behind the catalogue's back: those
// of files on this machine do, whenever somebody adds one.
func (d *Dir) Fresh() bool {
	if d.tool != "" {
		return true
	}
	r, err := d.fs.cat.Remote(d.remote)
	return err == nil && r.Client != nil && r.Client.Caps().Has(backends.CanOpenFile)
}

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
	if draft := d.draft(name); draft != nil && draft.counts() {
		return draft, nil
	}
	if child := d.toolDir(name); child != nil && d.fs.hasToolDir(child) {
		return child, nil
	}
	if d.tool != "" || isTemporary(name) && !mayBeShorthand(name) {
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
	if isUnavailable(err) && (isTemporary(name) || d.free(ctx, name)) {
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
func (d *Dir) free(ctx context.Context, name string) bool {
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
func mayBeShorthand(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.Contains(name, ":")
}

// lookupRemote finds what the catalogue knows. Names without a separator are first
// taken for directories, those with a plus last.
func (d *Dir) lookupRemote(ctx context.Context, name string) (Node, error) {
	if isShort(name) {
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
		d.keep(ctx, child.collection)
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
func (d *Dir) Glimpse(name string) (*Image, bool) {
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
	img, ok := d.Glimpse(name)
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
func (d *Dir) only(ctx context.Context, data *spool.Draft) *Image {
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

// Mkdir makes a collection, which stays here until an image is in it; or a tool's
// directory, if the name begins with a dot.
//
// Errors: fs.ErrExist; backends.ErrReadOnly; fs.ErrInvalid; ErrNameTooLong;
// backends.ErrNotAllowed in the root.
func (d *Dir) Mkdir(ctx context.Context, name string) (*Dir, error) {
	if d.remote == "" {
		return nil, fmt.Errorf("%w: remotes are made in the configuration", backends.ErrNotAllowed)
	}
	if len(name) > MaxName {
		return nil, ErrNameTooLong
	}
	if _, err := d.fs.writableRemote(d.remote); err != nil {
		return nil, err
	}
	if child := d.toolDir(name); child != nil {
		return child, d.fs.makeToolDir(child)
	}
	part, err := parseDir(name)
	if err != nil {
		return nil, err
	}
	child := &Dir{fs: d.fs, remote: d.remote, collection: join(d.collection, part)}
	if err := d.fs.cat.Mkdir(ctx, d.remote, child.collection); err != nil {
		return nil, err
	}
	return child, nil
}

// Rmdir removes a collection that Mkdir made and that is empty.
//
// Errors: fs.ErrNotExist; ErrNotDir; ErrNotEmpty; backends.ErrNotAllowed if it
// exists in the registry, though nothing in it can be listed.
func (d *Dir) Rmdir(ctx context.Context, name string) error {
	if d.remote == "" {
		return fmt.Errorf("%w: remotes are made in the configuration", backends.ErrNotAllowed)
	}
	node, err := d.Lookup(ctx, name, Caller{})
	if err != nil {
		return err
	}
	child, ok := node.(*Dir)
	if !ok {
		return ErrNotDir
	}
	if _, err := d.fs.writableRemote(d.remote); err != nil {
		return err
	}
	if d.fs.holdsFiles(child) {
		return ErrNotEmpty
	}
	if child.tool != "" {
		d.fs.removeToolDir(child)
		return nil
	}
	err = d.fs.cat.Rmdir(ctx, d.remote, child.collection)
	if errors.Is(err, cache.ErrInUse) {
		return ErrNotEmpty
	}
	return err
}

// Unlink removes a file: a draft always, an image where the remote's policy
// allows it. The directory stays, also without its last image, until Rmdir.
//
// Errors: fs.ErrNotExist; ErrIsDir; backends.ErrNotAllowed, ErrReadOnly; ErrBusy if
// the upload of a draft cannot be stopped any more; those of backends.Deleter.
func (d *Dir) Unlink(ctx context.Context, name string) error {
	node, err := d.Lookup(ctx, name, Caller{})
	if draft, ok := node.(*Draft); ok && err == nil {
		err = draft.unlink(ctx)
		for err == nil { // as many as write it
			if draft = d.draft(name); draft == nil {
				return nil
			}
			err = draft.remove()
		}
		if !errors.Is(err, uploads.ErrPublished) {
			return err
		}
		node, err = d.Lookup(ctx, name, Caller{}) // the image that it has become
	}
	if err != nil {
		return err
	}
	switch n := node.(type) {
	case *Draft:
		return fmt.Errorf("%s: %w", name, ErrBusy)
	case *Image:
		r, err := d.fs.writableRemote(d.remote)
		if err != nil {
			return err
		}
		if !r.Policy.Delete {
			return fmt.Errorf("%w: deleting on remote %s (--allow-delete)", backends.ErrNotAllowed, d.remote)
		}
		if err := d.fs.cat.Delete(ctx, d.remote, n.img); err != nil {
			return err
		}
		d.keep(ctx, d.collection)
		return nil
	}
	return ErrIsDir
}
