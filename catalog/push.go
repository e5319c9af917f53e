// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// Push publishes the file at path as uri. The same bytes there already is
// success; other bytes are replaced only with force, which then also overrides
// Policy.Overwrite: it was said for this one image. The file must not change
// meanwhile.
//
// Errors: those of Resolve; backends.ErrReadOnly, fs.ErrInvalid as Target;
// fs.ErrExist if the tag is taken; those of CompleteImage if the file is not a
// whole image; those of backends.Pusher.
func (c *Catalog) Push(ctx context.Context, path, uri string, force bool, p Progress) (Record, error) {
	r, ref, err := c.Resolve(ctx, uri, false)
	if err != nil {
		return Record{}, err
	}
	return c.pushFile(ctx, r, ref, pushOptions{path: path, force: force, progress: p})
}

type pushOptions struct {
	path        string
	force, give bool
	progress    Progress
}

func (c *Catalog) pushFile(ctx context.Context, r Remote, ref backends.Ref, o pushOptions) (Record, error) {
	fail := func(err error) (Record, error) {
		return Record{}, &backends.Error{Op: "push", Remote: r.Name, Ref: ref, Err: err}
	}
	if err := r.takes(ref); err != nil {
		return fail(err)
	}
	// The store is opened before anything is sent: it must hear of the result.
	var s Store
	if !r.atHand() {
		var err error
		if s, err = c.store(); err != nil {
			return Record{}, err
		}
	}
	f, src, err := openSource(ctx, o)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if s != nil {
		src.Session = c.session(s, r, ref, src.Digest)
	}
	defer c.pushes.watch(backends.URI{Remote: r.Name, Ref: ref}.String(), o.path, &src)()
	release, err := c.uploads.turns.Lock(ctx, string(imageKey(r.Name, ref)))
	if err != nil {
		return fail(err)
	}
	defer release()
	img, err := c.push(ctx, r, ref, src)
	if err != nil {
		if errors.Is(err, fs.ErrExist) && !o.force {
			return fail(backends.Saying(fs.ErrExist, "the tag is taken by another image (--force replaces it)"))
		}
		return Record{}, err
	}
	c.published(s, r, ref, img)
	rec := c.record(r.Name, img)
	rec.Path, err = c.pathOf(ctx, r, img)
	return rec, err
}

// openSource makes a file of the user's something to push: is it a whole image,
// and what is its digest? The caller closes the file.
func openSource(ctx context.Context, o pushOptions) (*os.File, backends.Source, error) {
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

// fileError is about a file that the user named: that it is missing is the
// user's business, but it must not read as "no such image".
func fileError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s", fs.ErrInvalid, path)
	case errors.Is(err, fs.ErrInvalid):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the file %s", fs.ErrPermission, path)
	}
	return diskError("read "+path, err)
}

func describeSource(ctx context.Context, f *os.File, o pushOptions) (backends.Source, error) {
	info, err := f.Stat()
	if err != nil {
		return backends.Source{}, fileError(o.path, err)
	}
	format, err := inspect.Complete(f, info.Size())
	if err != nil {
		return backends.Source{}, fmt.Errorf("%s: %w", o.path, err)
	}
	digest, err := digestOf(ctx, f)
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

// digestOf hashes all that f has.
func digestOf(ctx context.Context, f io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, contextReader(ctx, f)); err != nil {
		return "", err
	}
	return sha256Prefix + hex.EncodeToString(h.Sum(nil)), nil
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// contextReader ends with an error when ctx does.
func contextReader(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
