// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// A newFile is what a draft is made from.
type newFile struct {
	in       *Dir
	name     string
	who      Caller
	excl     bool        // the name must be free
	mode     fs.FileMode // of a new file
	replaces Node        // gives its inode number, which a file keeps when it is truncated; nil for a new name
}

// startDraft makes a draft for the caller and puts it at its location, beside those that
// others write there: each writer publishes its own whole file, and the last one stays.
// A temporary name has one file, as on any disk.
func (f *FS) startDraft(ctx context.Context, b newFile) (*Draft, error) {
	p := b.in.locate(b.name)
	old := f.draftAt(p)
	switch {
	case old == nil:
	case b.excl && old.visible():
		return nil, fmt.Errorf("%s: %w", b.name, fs.ErrExist)
	case p.temporary && old.visible():
		return old, nil
	case old.shadows() && !f.overwrites(b.in.remote):
		if err := old.awaitNotBusy(ctx); err != nil {
			return nil, err
		}
	}
	draft, err := f.createDraft(ctx, b)
	if err == nil {
		err = f.install(draft)
	}
	return draft, err
}

// createDraft makes a draft that is at no location yet.
func (f *FS) createDraft(ctx context.Context, b newFile) (*Draft, error) {
	data, err := f.createData(ctx, b.in, b.name, b.excl)
	if err != nil {
		return nil, err
	}
	// The draft is idle until it is opened. The journal has its mode by then, so that a
	// file which others may not read stays so after a crash.
	defer data.Idle()
	draft := f.newDraft(data, b.in.locate(b.name), b.name)
	draft.mustMatch = b.in.mustMatch(ctx, data)
	if b.replaces != nil {
		draft.ino = b.replaces.Attr().Ino
	}
	mode := b.mode
	if b.replaces != nil {
		mode = b.replaces.Attr().Mode.Perm()
	}
	draft.claim(b.who)
	return draft, draft.SetAttr(ctx, AttrChange{Mode: &mode})
}

func (f *FS) createData(ctx context.Context, d *Dir, name string, excl bool) (*spool.Draft, error) {
	if d.locate(name).temporary {
		return f.uploads.Stage(d.staged(name))
	}
	ref, format, err := d.parse(name)
	if err != nil {
		return nil, err
	}
	return f.uploads.Create(ctx, uploads.Destination{Remote: d.remote, Ref: ref, Format: format, Exclusive: excl})
}

// overwrites reports whether images of a remote can be replaced.
func (f *FS) overwrites(remote string) bool {
	r, err := f.cat.Remote(remote)
	return err == nil && r.Policy.Overwrite
}

// parse parses the name of a file that is to be an image in d.
func (d *Dir) parse(name string) (backends.Ref, string, error) {
	if err := checkName(name); err != nil {
		return backends.Ref{}, "", err
	}
	ref, format, err := parseFile(name)
	if err != nil {
		return ref, "", err
	}
	if ref.Version != "" {
		return ref, "", fmt.Errorf("%w: file name %q: a version is given by the registry", fs.ErrInvalid, name)
	}
	ref.Collection = d.collection
	return ref, format, nil
}

// OpenWrite makes a draft that is to replace the image. The draft is another file than
// the image, so that open readers keep the old bytes. Success is ErrRetry: the caller
// looks up the name again, finds the draft, and opens that.
//
// Without Truncate the draft begins as a copy of the image; if somebody changes the image
// in place already, it is that draft. With Truncate a draft is made also where nothing
// may be replaced, because copying the same bytes again is allowed.
//
// Errors: ErrRetry; ErrBusy; backends.ErrReadOnly, ErrNotAllowed; those of
// uploads.Create and of Open.
func (i *Image) OpenWrite(ctx context.Context, who Caller, flags Flags) error {
	if i.found {
		return errFound
	}
	truncate := flags.has(Truncate)
	r, err := i.fs.writableRemote(i.remote)
	if err != nil {
		return err
	}
	if !r.Policy.Overwrite && !truncate {
		return uploads.Taken(i.remote, i.img.Ref) // what is changed in place is another image
	}
	dir := &Dir{fs: i.fs, remote: i.remote, collection: i.img.Ref.Collection}
	name := i.fs.opts.Names.fileName(i.img.Ref, i.img.Format)
	if !truncate && i.fs.joinWriter(dir.locate(name), who) {
		return ErrRetry
	}
	begin := newFile{in: dir, name: name, who: who, replaces: i}
	if truncate {
		if _, err := i.fs.startDraft(ctx, begin); err != nil {
			return err
		}
		return ErrRetry
	}
	draft, err := i.fs.createDraft(ctx, begin)
	if err != nil {
		return err
	}
	if err := i.copyTo(ctx, draft); err != nil {
		draft.drop() //nolint:errcheck // the copy's error is the one to tell
		if now, lookErr := dir.Lookup(ctx, name, who); errors.Is(err, ErrRetry) && lookErr == nil {
			if other, ok := now.(*Image); ok && other.img.Version != i.img.Version {
				return other.OpenWrite(ctx, who, flags) // not with the next look: the kernel gives up then
			}
		}
		return err
	}
	if i.fs.joinWriter(dir.locate(name), who) { // somebody else was faster
		draft.drop() //nolint:errcheck // it is a copy
		return ErrRetry
	}
	if err := i.fs.install(draft); err != nil {
		return err
	}
	return ErrRetry
}

// joinWriter lets the caller find the draft at that location which is being changed in
// place, or is about to be. It reports whether there is one.
func (f *FS) joinWriter(p location, who Caller) bool {
	for _, d := range f.draftsAt(p) {
		d.mu.Lock()
		joined := (len(d.writers) > 0 || d.claimed()) && !d.ended() && !d.accepted() && d.data.Info().Target.InPlace
		d.mu.Unlock()
		if joined {
			d.claim(who)
			return true
		}
	}
	return false
}

// copyTo fills a draft with the image's bytes.
func (i *Image) copyTo(ctx context.Context, draft *Draft) error {
	target := draft.data.Info().Target
	if target.Replaces != i.img.Version {
		return ErrRetry // the name means another image by now, which these bytes must not replace
	}
	target.InPlace = true
	when := i.Attr().ModTime // the time changes with the first write
	err := errors.Join(draft.data.Retarget(target), draft.SetAttr(ctx, AttrChange{ModTime: &when}))
	if err != nil {
		return err
	}
	blob, err := i.open(ctx)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // only read
	if file, ok := blob.File(); ok {
		return draft.data.Fill(ctx, file, blob.Size())
	}
	return draft.data.Fill(ctx, readFunc(func(p []byte, off int64) (int, error) {
		return blob.ReadAtContext(ctx, p, off)
	}), blob.Size())
}

// A readFunc is an io.ReaderAt.
type readFunc func(p []byte, off int64) (int, error)

func (f readFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
