// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"github.com/sregfs/sregfs/backends"
)

// Delete implements backends.Deleter. The name is gone afterwards, so all
// versions of its tag are; with img.Ref.Version set only that one is. Of a
// symbolic link the link is removed. Folders that become empty go too.
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	t, err := c.open()
	if errors.Is(err, fs.ErrNotExist) {
		if _, known := c.statRecorded(ctx, c.view(), img.Ref); known == nil {
			t, err = c.make()
		}
	}
	if err != nil {
		return err
	}
	defer t.Close()
	unlock, err := t.lock(ctx)
	if err != nil {
		return localError(err)
	}
	defer unlock()
	files, err := t.versions(img.Ref)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return t.deleteRecorded(ctx, img)
	}
	if img.Ref.Version != "" {
		one, ok, err := t.withVersion(ctx, files, img.Ref.Version)
		if err != nil {
			return err
		}
		if !ok {
			return backends.NotFound("no such version")
		}
		files = []file{one}
	}
	if versionOf(files[0].info) != img.Version {
		return backends.ErrChanged
	}
	// The one that the tag means goes last: broken off half-way, it still does.
	slices.Reverse(files)
	dirs := map[string]bool{}
	for _, f := range files {
		dirs[f.dir] = true
		defer t.changed(f.dir)
		if err := t.Remove(filepath.FromSlash(path.Join(f.dir, f.base))); err != nil {
			return localError(err)
		}
	}
	for dir := range dirs {
		if err := t.syncDir(dir); err != nil {
			return localError(err)
		}
		t.removeEmpty(dir, ".")
		t.forget(dir)
	}
	ref := img.Ref
	if ref.Version != "" {
		ref.Version = files[0].ref.Version
	}
	return t.records.drop(ctx, ref)
}

// deleteRecorded forgets an image that only a record tells of. Its file goes too if it is
// in the store; one elsewhere is the user's.
func (t *tree) deleteRecorded(ctx context.Context, img backends.Image) error {
	r, err := t.recorded(ctx, img.Ref)
	switch {
	case err != nil:
		return err
	case r.version(&t.view) != img.Version:
		return backends.ErrChanged
	}
	if rel := t.relative(r.Path); r.Path != "" && rel != "" {
		defer t.changed(path.Dir(filepath.ToSlash(rel)))
		if err := t.Remove(rel); err != nil {
			return localError(err)
		}
	}
	ref := r.ref
	if img.Ref.Version != "" {
		ref.Version = r.Version
	}
	return t.records.drop(ctx, ref)
}

// versions returns all files of ref's tag, what it means now first.
func (v *view) versions(ref backends.Ref) ([]file, error) {
	dirs, err := v.dirs(ref.Collection)
	if err != nil {
		return nil, err
	}
	a, err := v.own(imageFiles{collection: ref.Collection, name: ref.Name}, dirs)
	if err != nil {
		return nil, err
	}
	subfolders, err := v.held(dirs)
	if err != nil {
		return nil, err
	}
	return v.current(a.flat(subfolders).tag(ref.Tag)), nil
}

// removeEmpty removes dir and its parents, up to but not including top, for as
// long as they are empty.
func (t *tree) removeEmpty(dir, top string) {
	for ; dir != top && dir != "."; dir = path.Dir(dir) {
		info, err := t.Lstat(filepath.FromSlash(dir))
		if err != nil || !info.IsDir() || t.Remove(filepath.FromSlash(dir)) != nil {
			return
		}
	}
}
