// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/backends/vsif/compact"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// transfers are the verbs that move the bytes of images, or remove them.
type transfers struct {
	blobs
	uploads *uploads.Uploads
	pushes  pushes
}

// PullOptions say what Pull does beyond making an image whole.
type PullOptions struct {
	To    string `json:"to,omitempty"`    // the file to write a copy to; "" wants none
	Force bool   `json:"force,omitempty"` // replace a file that is there

	// Compact is how the blocks of the copy are compressed if the image is a SIF made of
	// layers, which has none that are: see package compact. "" is not at all, and all
	// other images are copied as they are.
	Compact string `json:"compact,omitempty"`
}

// Pull makes an image whole and verified here. With o.To, a copy is
// written there (by reflink where it can), atomically, and executable as far as the
// umask lets it (see WithUmask).
//
// Errors: those of Resolve and Lookup; fs.ErrExist if there is a file at
// o.To, unless o.Force is set; fs.ErrInvalid for an o.Compact that is no codec; those of cache.Blob.Wait; the local disk's.
func (v *transfers) Pull(ctx context.Context, uri string, o PullOptions, p catalog.Progress) (Record, error) {
	if err := checkDestination(o); err != nil {
		return Record{}, err
	}
	var rec Record
	err := v.withImage(ctx, likeFile(uri, o.To), func(r catalog.Remote, img backends.Image) error {
		rec = Record{}
		var path string
		err := v.fetchWhole(ctx, r, img, p, func(file *os.File) error {
			path = file.Name()
			if o.To == "" {
				return nil
			}
			path = o.To
			fill := cloneFile
			if o.Compact != "" && vsif.IsDigest(img.Digest) {
				fill = compactFile(o.Compact)
			}
			return exportFile(ctx, fill, file, o, nil)
		})
		if err == nil {
			rec = v.record(r.Name, img)
			rec.Path = path
		}
		return err
	})
	return rec, err
}

// checkDestination refuses before anything is downloaded.
func checkDestination(o PullOptions) error {
	to := o.To
	if o.Compact != "" {
		if _, err := compact.ParseCodec(o.Compact); err != nil {
			return err
		}
		if to == "" {
			return backends.Saying(fs.ErrInvalid, "a compact copy needs a file: the cache keeps images as they are")
		}
	}
	if to == "" {
		return nil
	}
	info, err := os.Lstat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return backends.DiskError("pull to "+to, err)
	case info.IsDir():
		return backends.Saying(fs.ErrExist, "%s is a directory; name the file to write", to)
	case !o.Force:
		return backends.Saying(fs.ErrExist, "%s exists (--force replaces it)", to)
	}
	return nil
}

// fetchWhole calls use with a file that has all of the image's bytes, read from its
// beginning. The file is not evicted before use returns.
func (v *transfers) fetchWhole(ctx context.Context, r catalog.Remote, img backends.Image, p catalog.Progress, use func(*os.File) error) error {
	if p == nil {
		p = func(int64, int64) {}
	}
	if r.InPlace(img) {
		f, err := r.Client.OpenFile(ctx, img)
		if err != nil {
			return err
		}
		defer f.Close()
		p(img.Size, img.Size)
		return use(f)
	}
	b, err := v.cat.Blob(ctx, r.Name, img)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if err := b.Wait(ctx, func(have int64) { p(have, b.Size()) }); err != nil {
		return err
	}
	path, err := v.pathOf(ctx, r, img)
	if f, ok := b.File(); err == nil && path == "" && ok {
		path = f.Name()
	}
	switch {
	case err != nil:
		return err
	case path == "":
		return &backends.Error{Op: "pull", Remote: r.Name, Ref: img.Ref, Err: errors.New("the image left the cache at once; is the disk full?")}
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return backends.DiskError("read "+path, err)
	}
	defer f.Close()
	return use(f)
}

// exportFile copies src to a name of the user's: whole or not at all. fill writes the
// copy; mark, if not nil, completes it before it gets its name.
func exportFile(ctx context.Context, fill func(ctx context.Context, dst, src *os.File) error, src *os.File, o PullOptions, mark func(*os.File) error) (err error) {
	to := o.To
	fail := func(err error) error { return backends.DiskError("write "+to, err) }
	tmp, err := newCopy(filepath.Dir(to))
	if err != nil {
		return fail(err)
	}
	defer tmp.drop()
	err = fill(ctx, tmp.File, src)
	if err == nil {
		err = tmp.Chmod(modeFor(ctx))
	}
	if err == nil && mark != nil {
		err = mark(tmp.File)
	}
	if err = errors.Join(err, tmp.Sync()); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fail(err)
	}
	if err := tmp.become(to, o.Force); err != nil {
		if errors.Is(err, fs.ErrExist) && !o.Force {
			return backends.Saying(fs.ErrExist, "%s exists (--force replaces it)", to)
		}
		return fail(err)
	}
	if err := disk.SyncDir(filepath.Dir(to)); err != nil {
		return fail(err)
	}
	return nil
}

// cloneFile fills dst with what src holds, sharing the blocks where the file
// system can; os.File copies within the kernel otherwise.
func cloneFile(ctx context.Context, dst, src *os.File) error {
	if disk.Clone(dst, src) == nil {
		return nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch _, err := io.CopyN(dst, src, 64<<20); {
		case errors.Is(err, io.EOF):
			return sameSize(dst, src)
		case err != nil:
			return err
		}
	}
}

// compactFile returns a function that fills dst with the image that src holds, its blocks
// compressed.
func compactFile(codec string) func(ctx context.Context, dst, src *os.File) error {
	return func(ctx context.Context, dst, src *os.File) error {
		_, err := compact.Write(ctx, dst, src, compact.Options{Codec: compact.Codec(codec)})
		return err
	}
}

// sameSize makes sure that a copy did not end early.
func sameSize(dst, src *os.File) error {
	have, err := dst.Stat()
	if err != nil {
		return err
	}
	want, err := src.Stat()
	if err == nil && have.Size() != want.Size() {
		err = fmt.Errorf("%w: %d bytes of %d", io.ErrShortWrite, have.Size(), want.Size())
	}
	return err
}
