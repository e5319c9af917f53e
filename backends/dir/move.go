// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
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
		return backends.Image{}, backends.NotFound("no such image")
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
	return now, nil
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
