// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// PushOptions say what Push may do.
type PushOptions struct {
	Force  bool `json:"force,omitempty"`   // replace what the tag means now, whatever the policy is
	DryRun bool `json:"dry_run,omitempty"` // look at the file and the tag, and publish nothing
}

// Push publishes the file at path as uri. If the tag has the same bytes
// already, that is success; other bytes are replaced only with o.Force, which also
// overrides Policy.Overwrite, as it concerns this one image. The file must not change
// meanwhile.
//
// Errors: those of Resolve; backends.ErrReadOnly, fs.ErrInvalid as Target;
// fs.ErrExist if the tag is taken; those of CompleteImage if the file is not a
// whole image; those of backends.Pusher.
func (v *transfers) Push(ctx context.Context, path, uri string, o PushOptions, p catalog.Progress) (Record, error) {
	r, ref, err := v.Resolve(ctx, uri, Writing)
	if err != nil {
		return Record{}, err
	}
	return v.pushFile(ctx, r, ref, source{path: path, force: o.Force, dry: o.DryRun, progress: p})
}

// A source is a file of the user's.
type source struct {
	path     string
	force    bool // it replaces what the tag means now
	give     bool // it may be linked into the store
	dry      bool // it is only looked at
	progress catalog.Progress
}

func (v *transfers) pushFile(ctx context.Context, r catalog.Remote, ref backends.Ref, o source) (Record, error) {
	fail := func(err error) error { return &backends.Error{Op: "push", Remote: r.Name, Ref: ref, Err: err} }
	refused := func(err error) error {
		if errors.Is(err, fs.ErrExist) && !o.force {
			return fail(errTaken)
		}
		return err
	}
	if err := r.Takes(ref); err != nil {
		return Record{}, fail(err)
	}
	// The state, which keeps the result, is opened before anything is read.
	if !r.Local() && !o.dry {
		if _, err := v.cat.State(); err != nil {
			return Record{}, err
		}
	}
	f, src, err := openSource(ctx, o)
	if err != nil {
		return Record{}, fail(err)
	}
	defer f.Close()
	if o.dry {
		if _, _, err := v.uploads.Check(ctx, r, ref, src); err != nil {
			return Record{}, refused(err)
		}
		return v.record(r.Name, backends.Image{Ref: ref, Size: src.Size, Digest: src.Digest, Format: src.Format}), nil
	}
	defer v.pushes.watch(backends.URI{Remote: r.Name, Ref: ref}.String(), o.path, &src)()
	img, err := v.uploads.Send(ctx, r, ref, src)
	if err != nil {
		return Record{}, refused(err)
	}
	rec := v.record(r.Name, img)
	rec.Path, err = v.pathOf(ctx, r, img)
	return rec, err
}

// openSource checks that a file is a whole image, and returns it with its digest as a
// Source. The caller closes the file.
func openSource(ctx context.Context, o source) (*os.File, backends.Source, error) {
	f, err := backends.OpenRegular(o.path, os.O_RDONLY, 0)
	if err != nil {
		return nil, backends.Source{}, fileError(o.path, err)
	}
	src, err := describeSource(ctx, f, o)
	if err != nil {
		f.Close()
		return nil, backends.Source{}, err
	}
	return f, src, nil
}

// fileError is the error of a file that the user named. If it is missing, that must not
// read as "no such image".
func fileError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s", fs.ErrInvalid, path)
	case errors.Is(err, fs.ErrInvalid):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the file %s", fs.ErrPermission, path)
	}
	return backends.DiskError("read "+path, err)
}

func describeSource(ctx context.Context, f *os.File, o source) (backends.Source, error) {
	info, err := f.Stat()
	if err != nil {
		return backends.Source{}, fileError(o.path, err)
	}
	format, err := inspect.Complete(f, info.Size())
	if err != nil {
		return backends.Source{}, fmt.Errorf("%s: %w", o.path, err)
	}
	digest, err := uploads.Digest(ctx, f)
	if err != nil {
		return backends.Source{}, fileError(o.path, err)
	}
	src := backends.Source{
		Content: f, Size: info.Size(), Digest: digest, Format: format, Modified: info.ModTime(), Mode: info.Mode().Perm(),
		Path: o.path, Give: o.give,
	}
	if o.force {
		src.Replaces = backends.ReplaceAny
	}
	if o.progress != nil {
		src.Progress = func(stored int64) { o.progress(stored, src.Size) }
	}
	return src, nil
}

// AddOptions say how Add takes a file.
type AddOptions struct {
	Move bool `json:"move,omitempty"` // remove the file afterwards
	PushOptions
}

// Add copies (by reflink where it can), or with o.Move moves, the file at path
// into the local remote, which is also that of a uri without one. A uri of another
// remote is a Push, after which o.Move removes the file.
//
// Errors: those of Push.
func (v *transfers) Add(ctx context.Context, path, uri string, o AddOptions, p catalog.Progress) (Record, error) {
	r, ref, err := v.resolve(ctx, uri, localRemote, Writing)
	if err != nil {
		return Record{}, err
	}
	// A file that is moved may be linked into the store, which together with the
	// removal below is a rename. Of a symbolic link only the link is removed.
	info, err := os.Lstat(path)
	give := o.Move && err == nil && info.Mode().IsRegular()
	rec, err := v.pushFile(ctx, r, ref, source{path: path, force: o.Force, dry: o.DryRun, give: give, progress: p})
	if err != nil || !o.Move || o.DryRun || sameName(path, rec.Path) {
		return rec, err
	}
	if err := os.Remove(path); err != nil {
		return rec, backends.DiskError(rec.URI+" was added, but the file stays", err)
	}
	return rec, nil
}

// sameName reports whether both names lead to one directory entry, which must not be
// removed then. Two hard links to one file are two entries.
func sameName(a, b string) bool {
	realA, errA := filepath.EvalSymlinks(a)
	realB, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && realA == realB
}
