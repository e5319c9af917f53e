// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Mkdir makes a collection, which exists only here until an image is pushed to it; or a
// tool's directory, if the name begins with a dot.
//
// Errors: fs.ErrExist; backends.ErrReadOnly; fs.ErrInvalid; ErrNameTooLong;
// backends.ErrNotAllowed in the root.
func (d *Dir) Mkdir(ctx context.Context, name string) (*Dir, error) {
	if err := d.checkTakes(); err != nil {
		return nil, err
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
	if err := d.checkTakes(); err != nil {
		return err
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

// Unlink removes a file: a draft always, an image if the remote's policy allows it. The
// directory stays until Rmdir, even when its last image is gone.
//
// Errors: fs.ErrNotExist; ErrIsDir; backends.ErrNotAllowed, ErrReadOnly; ErrBusy if
// the upload of a draft cannot be stopped any more; those of backends.Deleter.
func (d *Dir) Unlink(ctx context.Context, name string) error {
	if d.finder != "" {
		return d.checkTakes()
	}
	node, err := d.Lookup(ctx, name, Caller{})
	if draft, ok := node.(*Draft); ok && err == nil {
		err = draft.unlink(ctx)
		for err == nil { // there is one for each writer
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
		d.keepCollection(ctx, d.collection)
		return nil
	}
	return ErrIsDir
}

// Attr implements Node.
func (d *Dir) Attr() Attr {
	mode := fs.ModeDir | 0o555
	if r, ok := d.fs.cat.Configured(d.remote); ok && d.fs.canPush(r) {
		mode |= 0o200
	}
	return Attr{Ino: d.ino(), Mode: mode, ModTime: d.fs.started}
}

// unlink is remove for a draft that may be queued or being published.
// Errors: uploads.ErrPublished; ErrBusy if publishing cannot be stopped any more.
func (d *Draft) unlink(ctx context.Context) error {
	d.mu.Lock()
	data := d.data
	d.mu.Unlock()
	if data == nil {
		return d.remove()
	}
	err := d.fs.uploads.Withdraw(ctx, data, func() error {
		if err := d.lock(ctx); err != nil { // those that wait for the upload return first
			return err
		}
		defer d.unlock()
		return d.remove()
	})
	switch {
	case errors.Is(err, spool.ErrInUse):
		return fmt.Errorf("%s: %w: %v", d.fileName(), ErrBusy, err)
	case errors.Is(err, uploads.ErrPublished):
		if err := d.lock(ctx); err != nil {
			return err
		}
		d.unlock()
	}
	return err
}

// Create makes a file and opens it for writing. The mode has the caller's umask applied.
// Users whom it excludes cannot read the published image either, see Draft.
//
// Errors: fs.ErrExist with Exclusive if the name is taken; ErrBusy; fs.ErrInvalid
// and ErrNameTooLong for a name that cannot be; backends.ErrNotAllowed in the
// root; those of uploads.Create.
func (d *Dir) Create(ctx context.Context, name string, mode fs.FileMode, who Caller, flags Flags) (*Draft, *File, error) {
	if err := d.checkTakes(); err != nil {
		return nil, nil, err
	}
	if len(name) > MaxName {
		return nil, nil, ErrNameTooLong
	}
	if _, err := d.fs.writableRemote(d.remote); err != nil {
		return nil, nil, err
	}
	draft, err := d.fs.startDraft(ctx, newFile{in: d, name: name, who: who, excl: flags.has(Exclusive), mode: mode.Perm()})
	if err != nil {
		return nil, nil, err
	}
	file, err := draft.Open(ctx, who, Write)
	return draft, file, err
}
