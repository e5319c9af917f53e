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
// A draft moves to its new location. Under an image's name it is published there: at once
// if nobody has it open for writing, else by the last close. An image is renamed at its
// service, if the service can do that. ErrCrossDevice makes mv copy and delete instead;
// where it could copy but not delete, the rename is refused.
//
// Errors: fs.ErrNotExist; fs.ErrExist with Exclusive if the name is taken;
// ErrCrossDevice for an image or a directory; backends.ErrNotAllowed if it may not be
// deleted; ErrBusy; those of File.Flush and of Dir.Create.
func (d *Dir) Rename(ctx context.Context, name string, to *Dir, newName string, flags Flags) error {
	noReplace := flags.has(Exclusive)
	if d.finder != "" {
		return d.checkTakes()
	}
	if err := to.checkTakes(); err != nil {
		return err
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
	if err := draft.awaitClosing(ctx); err != nil {
		return err
	}
	if err := draft.lock(ctx); err != nil {
		return err
	}
	defer draft.unlock()
	defer draft.releaseOver()
	return draft.rename(ctx, to, newName, noReplace)
}

// checkMoveAway refuses to move a name away from a remote that does not allow deleting:
// mv would copy instead, fail to delete the original, and leave both.
func (d *Dir) checkMoveAway() error {
	r, err := d.fs.writableRemote(d.remote)
	if err == nil && (!r.Policy.Delete || !r.Client.Caps().Has(backends.CanDelete)) {
		err = fmt.Errorf("%w: a new name takes the old one away, and so does deleting on remote %s (--allow-delete)", backends.ErrNotAllowed, d.remote)
	}
	return err
}

// renameDir refuses: no service moves a collection. One that exists only here can be
// copied and removed instead.
func (d *Dir) renameDir(ctx context.Context, child *Dir) error {
	if child.collection != "" {
		for e, err := range child.List(ctx) {
			if err == nil && e.draft == nil {
				if err := d.checkMoveAway(); err != nil {
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
	if err := d.checkMoveAway(); err != nil {
		return err
	}
	if _, err := to.fs.writableRemote(to.remote); err != nil {
		return err
	}
	target := to.locate(newName)
	ref, format, err := to.parse(newName)
	if target.temporary || to.tool != "" || err != nil || to.remote != d.remote || img.img.Ref.Version != "" ||
		format != "" && backends.Ext(format) != backends.Ext(img.img.Format) {
		return fmt.Errorf("%s: %w", img.img.Ref, ErrCrossDevice) // the copy that mv makes then gets the precise error
	}
	if other := d.fs.draftAt(target); other != nil {
		if err := other.awaitNotBusy(ctx); err != nil {
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
		d.keepCollection(ctx, d.collection)
	}
	return err
}

// releaseOver releases the data of a file that a rename has published and that no handle
// will release.
func (d *Draft) releaseOver() {
	d.mu.Lock()
	over := d.ended()
	d.mu.Unlock()
	if over {
		d.release()
	}
}

// awaitClosing waits for the RELEASE of handles that were closed. The kernel sends it some
// time after close(2) has returned. A rename that came first would take the file for open
// and leave the publishing to that handle, whose error nobody sees.
func (d *Draft) awaitClosing(ctx context.Context) error {
	d.mu.Lock()
	closing := d.closing()
	d.mu.Unlock()
	if !closing {
		return nil
	}
	return d.awaitWriters(ctx)
}

// rename needs d.lock.
func (d *Draft) rename(ctx context.Context, to *Dir, newName string, noReplace bool) error {
	d.mu.Lock()
	data, from, oldName, same, sticky := d.data, d.loc, d.name, d.mustMatch, d.err
	over, busy := data == nil || d.ended(), d.accepted()
	d.mu.Unlock()
	target := to.locate(newName)
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
	if other := d.fs.draftAt(target); other != nil && !target.temporary && other.shadows() {
		if err := other.awaitNotBusy(ctx); err != nil { // it is queued, and must be published first
			return err
		}
	}
	old := data.Info().Target
	if err := d.retarget(ctx, to, newName, noReplace); err != nil {
		return err
	}
	replaced := d.move(target, newName, to.mustMatch(ctx, data))
	if err := d.finishRename(ctx, target); err != nil {
		// The file keeps its old name, so that the rename can be tried again.
		d.moveBack(from, oldName, same, replaced)
		return errors.Join(err, data.Retarget(old))
	}
	d.fs.notify(from.change(oldName))
	d.changed()
	var err error
	for _, other := range replaced {
		err = errors.Join(err, other.drop())
	}
	return err
}

// checkTarget refuses a temporary name that is taken, with noReplace. For images the
// catalogue decides.
func (d *Dir) checkTarget(ctx context.Context, target location, name string, noReplace bool) error {
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

// retarget notes in the journal where the draft is to be published.
func (d *Draft) retarget(ctx context.Context, to *Dir, name string, noReplace bool) error {
	d.mu.Lock()
	data := d.data
	d.mu.Unlock()
	if to.locate(name).temporary {
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

// move puts the draft at another location and returns the drafts that it replaces there.
// There it may not replace the image same; nil for none. It needs d.lock.
func (d *Draft) move(target location, name string, same *Image) (replaced []*Draft) {
	d.mu.Lock()
	from := d.loc
	d.loc, d.name, d.mustMatch = target, name, same
	d.mu.Unlock()
	d.fs.detach(d, from)
	return d.fs.insert(d)
}

func (d *Draft) moveBack(from location, name string, same *Image, replaced []*Draft) {
	d.mu.Lock()
	d.err = nil
	d.mu.Unlock()
	d.move(from, name, same)
	for _, other := range replaced {
		d.fs.insert(other)
	}
}

// finishRename publishes a draft that was given an image's name and that has no writer
// whose close would do it. It needs d.lock.
func (d *Draft) finishRename(ctx context.Context, target location) error {
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
