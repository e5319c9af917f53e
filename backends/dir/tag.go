// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// Tag implements backends.Tagger: the file gets another name beside its own. Where the disk
// can, that is a file of its own which shares the blocks, else a hard link.
func (c *client) Tag(ctx context.Context, img backends.Image, tag, replaces string) (backends.Image, error) {
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
	f, err := t.find(ctx, img.Ref)
	switch {
	case err != nil:
		return backends.Image{}, err
	case versionOf(f.info) != img.Version:
		return backends.Image{}, backends.ErrChanged
	}
	to := img.Ref
	to.Tag, to.Version = tag, ""
	if tag == f.ref.Tag && img.Ref.Version == "" {
		return t.describe(f, t.digest(f)), nil
	}
	old, err := t.replaced(ctx, to, backends.Source{Replaces: replaces})
	if err != nil {
		return backends.Image{}, err
	}
	now, err := t.double(ctx, f, to, old)
	return now, localError(err)
}

// double gives the file f the name to, too, in place of old.
func (t *tree) double(ctx context.Context, f file, to backends.Ref, old *file) (backends.Image, error) {
	digest := t.digest(f)
	if old != nil && digest != "" && t.digest(*old) == digest {
		return t.describe(*old, digest), nil
	}
	tmp, err := t.twin(ctx, f)
	if err != nil {
		return backends.Image{}, err
	}
	info, err := t.newest(tmp, f, to)
	if err == nil {
		target := layoutOf(to, digest, path.Ext(f.base))
		as := file{dir: path.Dir(target), base: path.Base(target), ref: to, format: f.format, info: info}
		var img backends.Image
		if img, err = t.become(tmp, as, digest, old); err == nil {
			return img, nil
		}
	}
	_ = t.Remove(tmp)
	return backends.Image{}, err
}

// twin makes a second file of f, or a second name, where nobody sees it.
func (t *tree) twin(ctx context.Context, f file) (tmp string, err error) {
	in, err := t.openImage(f)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if err := t.MkdirAll(tmpDir, 0o777); err != nil {
		return "", err
	}
	tmp = filepath.Join(tmpDir, rand.Text())
	out, err := t.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, f.info.Mode().Perm())
	if err != nil {
		return "", err
	}
	err = disk.Clone(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		return tmp, nil
	}
	_ = t.Remove(tmp)
	real, _, err := t.target(join(f.dir, f.base))
	if err != nil {
		return "", err
	}
	if err := t.Link(filepath.FromSlash(real), tmp); err == nil {
		return tmp, nil
	}
	digest, err := t.hash(ctx, f)
	if err != nil {
		return "", err
	}
	return t.stage(ctx, backends.Source{Content: in, Size: f.info.Size(), Digest: digest, Format: f.format, Mode: f.info.Mode().Perm()})
}

// newest makes the file at tmp, which f is the other name of, newer than all that has the
// name to already: the newest is what a tag means. Else it has the time of f.
func (t *tree) newest(tmp string, f file, to backends.Ref) (os.FileInfo, error) {
	versions, err := t.versions(to)
	if err != nil {
		return nil, err
	}
	when := f.info.ModTime()
	if slices.ContainsFunc(versions, func(v file) bool { return !v.info.ModTime().Before(when) }) {
		if when = time.Now(); !when.After(versions[0].info.ModTime()) {
			when = versions[0].info.ModTime().Add(time.Millisecond)
		}
	}
	if err := t.Chtimes(tmp, when, when); err != nil {
		return nil, err
	}
	info, err := t.Lstat(tmp)
	if err == nil && os.SameFile(info, f.info) { // the same file got another time
		digest := t.digest(f)
		f.info = info
		t.note(f, digest)
		t.changed(f.dir)
	}
	return info, err
}

// Versions implements backends.VersionLister. Files of one tag are its versions: the newest
// is what it means.
func (c *client) Versions(ctx context.Context, ref backends.Ref) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		v := c.view()
		defer v.Close()
		dirs, err := v.dirs(ref.Collection)
		if err == nil {
			err = v.eachVersion(ctx, ref, dirs, yield)
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(backends.Image{}, err)
		}
	}
}

// errEnough ends a listing whose caller wants no more.
var errEnough = errors.New("enough")

func (v *view) eachVersion(ctx context.Context, ref backends.Ref, dirs []string, yield func(backends.Image, error) bool) error {
	a, err := v.own(imageFiles{collection: ref.Collection, name: ref.Name}, dirs)
	if err != nil {
		return err
	}
	subfolders, err := v.held(dirs)
	if err != nil {
		return err
	}
	a = a.flat(subfolders)
	found := false
	for tag := range a.tags() {
		for i, f := range v.current(a.tag(tag)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			img := v.describe(f, v.digest(f))
			if i > 0 {
				img.Ref.Version = v.versionName(f, img)
			}
			found = true
			if !yield(img, nil) {
				return errEnough
			}
		}
	}
	if !found {
		return backends.NotFound("no such image")
	}
	return nil
}

// versionName is the shortest thing that Stat takes for the version of f.
func (v *view) versionName(f file, img backends.Image) string {
	if digest, ok := isHash(f.ref.Version); img.Digest == "" && ok {
		return digest
	}
	if img.Digest != "" {
		return img.Digest
	}
	return img.Version
}
