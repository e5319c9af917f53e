// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Move implements backends.Mover: the file gets its new name by one rename. Of the
// old name older versions go too. A symbolic link is not moved: where it leads to may
// depend on where it is.
func (c *client) Move(ctx context.Context, img backends.Image, to backends.Ref, replaces string) (backends.Image, error) {
	t, err := c.open()
	if err != nil {
		return backends.Image{}, err
	}
	defer t.Close()
	unlock, err := t.lock(ctx)
	if err != nil {
		return backends.Image{}, localError(err)
	}
	defer unlock()
	files, err := t.versions(img.Ref)
	switch {
	case err != nil:
		return backends.Image{}, err
	case len(files) == 0:
		return t.moveRecorded(ctx, img, to, replaces)
	case versionOf(files[0].info) != img.Version:
		return backends.Image{}, backends.ErrChanged
	}
	to.Version = ""
	old, err := t.replaced(ctx, to, backends.Source{Replaces: replaces})
	if err != nil {
		return backends.Image{}, err
	}
	now, err := t.move(files, to, old)
	if err != nil {
		return backends.Image{}, localError(err)
	}
	return now, t.follow(ctx, t.abs(files[0].dir, files[0].base), img.Ref, to)
}

// follow makes the records of a file that was moved say where it is.
func (t *tree) follow(ctx context.Context, was string, from, to backends.Ref) error {
	f, err := t.find(ctx, to)
	if err != nil {
		return err
	}
	return t.records.moved(ctx, from, to, was, t.abs(f.dir, f.base))
}

// moveRecorded is Move for an image that only a record tells of. A file in a flat store gets
// its place in the present layout.
func (t *tree) moveRecorded(ctx context.Context, img backends.Image, to backends.Ref, replaces string) (backends.Image, error) {
	r, err := t.recorded(ctx, img.Ref)
	if err == nil && r.version(&t.view) != img.Version {
		err = backends.ErrChanged
	}
	if err != nil {
		return backends.Image{}, err
	}
	to.Version = ""
	old, err := t.replaced(ctx, to, backends.Source{Replaces: replaces})
	if err != nil {
		return backends.Image{}, err
	}
	if rel := t.relative(r.Path); r.Path != "" && rel != "" {
		rel = filepath.ToSlash(rel)
		f := file{dir: path.Dir(rel), base: path.Base(rel), ref: r.ref, format: split(path.Base(rel)).format, info: r.info}
		now, err := t.move([]file{f}, to, old)
		if err != nil {
			return backends.Image{}, localError(err)
		}
		return now, t.follow(ctx, r.Path, r.ref, to)
	}
	if old != nil {
		return backends.Image{}, backends.Saying(fs.ErrExist, "there is a file of that name in the store: remove it first")
	}
	rec := r.record
	rec.Tag = to.Tag
	if err := t.records.put(ctx, to, rec, ""); err != nil {
		return backends.Image{}, err
	}
	now := recorded{rec, to, r.info}
	return now.image(&t.view), t.records.drop(ctx, r.ref)
}

// move gives the first of the files, which are all of one name, the name to.
func (t *tree) move(files []file, to backends.Ref, old *file) (backends.Image, error) {
	f := files[0]
	from := filepath.FromSlash(path.Join(f.dir, f.base))
	info, err := t.Lstat(from)
	if err != nil {
		return backends.Image{}, err
	}
	if !info.Mode().IsRegular() {
		return backends.Image{}, fmt.Errorf("%w: a symbolic link is not moved", errors.ErrUnsupported)
	}
	digest := t.digest(f)
	// What to means is the newest of its files.
	if old != nil && !info.ModTime().After(old.info.ModTime()) {
		when := time.Now()
		if !when.After(old.info.ModTime()) {
			when = old.info.ModTime().Add(time.Millisecond)
		}
		if err := t.Chtimes(from, when, when); err != nil {
			return backends.Image{}, err
		}
		if info, err = t.Lstat(from); err != nil {
			return backends.Image{}, err
		}
	}
	target := layoutOf(to, digest, path.Ext(f.base))
	defer t.changed(f.dir)
	img, err := t.become(from, file{dir: path.Dir(target), base: path.Base(target), ref: to, format: f.format, info: info}, digest, old)
	if err != nil {
		return backends.Image{}, err
	}
	_ = t.syncDir(f.dir) // the file has its new name for good already
	// Only now: a move that fails has removed nothing.
	for _, older := range slices.Backward(files[1:]) {
		defer t.changed(older.dir)
		if err := t.Remove(filepath.FromSlash(path.Join(older.dir, older.base))); err != nil {
			return backends.Image{}, err
		}
	}
	for _, left := range files {
		t.removeEmpty(left.dir, ".")
		t.forget(left.dir)
	}
	return img, nil
}
