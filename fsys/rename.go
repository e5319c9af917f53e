// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Rename gives a file of d another name, in d or another directory.
//
// A draft goes to its new place; under an image's name it is published there,
// at once if nobody has it open for writing, else when they close it. An image is
// renamed at its service, if that can do it. What cannot be renamed mv copies and
// deletes by itself; where it could only copy, that is refused at once.
//
// Errors: fs.ErrNotExist; fs.ErrExist if noReplace is set and the name is taken;
// ErrCrossDevice for an image or a directory; backends.ErrNotAllowed if it may not be
// deleted; ErrBusy; those of File.Flush and of Dir.Create.
func (d *Dir) Rename(ctx context.Context, name string, to *Dir, newName string, noReplace bool) error {
	if to.remote == "" {
		return fmt.Errorf("%w: only remotes stand here", backends.ErrNotAllowed)
	}
	if len(newName) > MaxName {
		return ErrNameTooLong
	}
	node, err := d.Lookup(ctx, name, Caller{})
	if err != nil {
		return err
	}
	switch n := node.(type) {
	case *Image:
		return d.renameImage(ctx, n, to, newName, noReplace)
	case *Dir:
		return d.renameDir(ctx, n)
	}
	draft, ok := node.(*Draft)
	if !ok {
		return fmt.Errorf("%s: %w", name, ErrCrossDevice)
	}
	if _, err := to.fs.writableRemote(to.remote); err != nil {
		return err
	}
	if err := draft.settleWriters(ctx); err != nil {
		return err
	}
	if err := draft.lock(ctx); err != nil {
		return err
	}
	defer draft.unlock()
	defer draft.releaseOver()
	return draft.rename(ctx, to, newName, noReplace)
}

// mayTake refuses to take names away from the remote where it would not delete them:
// whoever copies instead would publish a copy, and then be left with both.
func (d *Dir) mayTake() error {
	r, err := d.fs.writableRemote(d.remote)
	if err == nil && (!r.Policy.Delete || !r.Client.Caps().Has(backends.CanDelete)) {
		err = fmt.Errorf("%w: a new name takes the old one away, and so does deleting on remote %s (--allow-delete)", backends.ErrNotAllowed, d.remote)
	}
	return err
}

// renameDir refuses: no service moves a collection. One that only stands here can be
// copied and removed by anybody.
func (d *Dir) renameDir(ctx context.Context, child *Dir) error {
	if child.collection != "" {
		for e, err := range child.List(ctx) {
			if err == nil && e.draft == nil {
				if err := d.mayTake(); err != nil {
					return err
				}
			}
			break
		}
	}
	return fmt.Errorf("%s: %w", child.collection, ErrCrossDevice)
}

// renameImage gives an image another name at its service.
func (d *Dir) renameImage(ctx context.Context, img *Image, to *Dir, newName string, noReplace bool) error {
	if err := d.mayTake(); err != nil {
		return err
	}
	if _, err := to.fs.writableRemote(to.remote); err != nil {
		return err
	}
	target := to.place(newName)
	ref, format, err := to.parse(newName)
	if target.temporary || to.tool != "" || err != nil || to.remote != d.remote || img.img.Ref.Version != "" ||
		format != "" && backends.Ext(format) != backends.Ext(img.img.Format) {
		return fmt.Errorf("%s: %w", img.img.Ref, ErrCrossDevice) // whoever copies is told why, if it cannot be
	}
	if other := d.fs.draft(target); other != nil {
		if err := other.wait(ctx); err != nil {
			return err
		}
	}
	if ref == img.img.Ref {
		return nil
	}
	err = d.fs.uploads.Move(ctx, img.img, uploads.Destination{Remote: d.remote, Ref: ref, Format: img.img.Format, Exclusive: noReplace})
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%s: %w", img.img.Ref, ErrCrossDevice)
	}
	if err == nil {
		d.keep(ctx, d.collection)
	}
	return err
}

// keep lets a directory stay, also without its last image.
func (d *Dir) keep(ctx context.Context, collection string) {
	if err := d.fs.cat.Keep(ctx, d.remote, collection); err != nil {
		d.fs.opts.Log.Warn("an emptied collection could not be kept", "remote", d.remote, "collection", collection, "err", err)
	}
}

// releaseOver gives the data back of a file that a rename has published: no handle
// will.
func (d *Draft) releaseOver() {
	d.mu.Lock()
	over := d.over()
	d.mu.Unlock()
	if over {
		d.release()
	}
}

// settleWriters waits for the handle that its opener has closed. The kernel tells
// us of that some time after close(2) has returned; a rename that came first would
// take the file for open, leave the publishing to that handle, and succeed whatever
// becomes of it.
func (d *Draft) settleWriters(ctx context.Context) error {
	d.mu.Lock()
	closing := d.closing()
	d.mu.Unlock()
	if !closing {
		return nil
	}
	return d.awaitWriters(ctx)
}

// rename needs the turn.
func (d *Draft) rename(ctx context.Context, to *Dir, newName string, noReplace bool) error {
	d.mu.Lock()
	data, from, oldName, same, sticky := d.data, d.place, d.name, d.same, d.err
	over, busy := data == nil || d.over(), d.accepted()
	d.mu.Unlock()
	target := to.place(newName)
	switch {
	case sticky != nil:
		return sticky
	case over:
		return fs.ErrNotExist
	case busy:
		return fmt.Errorf("%s: %w", oldName, ErrBusy)
	case target == from:
		return nil
	}
	if err := to.checkTarget(ctx, target, newName, noReplace); err != nil {
		return err
	}
	if other := d.fs.draft(target); other != nil && !target.temporary && other.counts() {
		if err := other.wait(ctx); err != nil { // it is queued, and this one would overtake it
			return err
		}
	}
	old := data.Info().Target
	if err := d.retarget(ctx, to, newName, noReplace); err != nil {
		return err
	}
	replaced := d.move(target, newName, to.only(ctx, data))
	if err := d.finishRename(ctx, target); err != nil {
		// The file keeps its old name, so that whoever renames can try again.
		d.moveBack(from, oldName, same, replaced)
		return errors.Join(err, data.Retarget(old))
	}
	d.fs.tell(from.change(oldName))
	d.changed()
	var err error
	for _, other := range replaced {
		err = errors.Join(err, other.drop())
	}
	return err
}

// checkTarget refuses a temporary name that is taken, if it must not be. For
// images the catalogue decides.
func (d *Dir) checkTarget(ctx context.Context, target place, name string, noReplace bool) error {
	if !target.temporary || !noReplace {
		return nil
	}
	_, err := d.Lookup(ctx, name, Caller{})
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// retarget tells the journal where the draft goes now.
func (d *Draft) retarget(ctx context.Context, to *Dir, name string, noReplace bool) error {
	d.mu.Lock()
	data := d.data
	d.mu.Unlock()
	if to.place(name).temporary {
		return data.Retarget(to.staged(name))
	}
	ref, format, err := to.parse(name)
	if err != nil {
		return err
	}
	target, err := d.fs.uploads.Target(ctx, uploads.Destination{Remote: to.remote, Ref: ref, Format: format, Exclusive: noReplace})
	if err != nil {
		return err
	}
	return data.Retarget(target)
}

// move puts the draft in another place, where it may not replace the image same (nil
// for none), and returns who had it. It needs the turn.
func (d *Draft) move(target place, name string, same *Image) (replaced []*Draft) {
	d.mu.Lock()
	from := d.place
	d.place, d.name, d.same = target, name, same
	d.mu.Unlock()
	d.fs.take(d, from)
	return d.fs.put(d)
}

func (d *Draft) moveBack(from place, name string, same *Image, replaced []*Draft) {
	d.mu.Lock()
	d.err = nil
	d.mu.Unlock()
	d.move(from, name, same)
	for _, other := range replaced {
		d.fs.put(other)
	}
}

// finishRename publishes a draft that has got an image's name and that nobody
// will close any more. It needs the turn.
func (d *Draft) finishRename(ctx context.Context, target place) error {
	d.mu.Lock()
	open := len(d.writers) > 0
	if !target.temporary {
		d.dirty = true // a copy that was closed under its temporary name is still to be published
	}
	d.mu.Unlock()
	if target.temporary || open {
		return nil
	}
	return d.publishLocked(ctx)
}
