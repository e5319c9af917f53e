// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// An Image is a published image as a file. It stands for one version: when its
// name comes to mean another, Lookup returns another node.
type Image struct {
	fs     *FS
	remote string
	img    backends.Image // without Labels
	labels string         // packed: the kernel can know a million images
	ino    uint64
	size   atomic.Int64 // as img.Size, or what the first opening showed

	failure atomic.Pointer[error] // see Fail; nil after a success
}

func newImage(f *FS, remote string, img backends.Image) *Image {
	i := &Image{fs: f, remote: remote, img: img, labels: packLabels(img.Labels), ino: imageIno(remote, &img)}
	i.img.Labels = nil
	i.size.Store(img.Size)
	return i
}

// Ref returns the image's name in its remote.
func (i *Image) Ref() backends.Ref { return i.img.Ref }

// Key returns the key of the image's bytes, as Change has it.
func (i *Image) Key() cache.Key { return cache.KeyOf(i.remote, i.img) }

// Attr implements Node.
func (i *Image) Attr() Attr {
	mode := fs.FileMode(0o555)
	if i.img.Format == backends.FormatArchive || i.img.Format == backends.FormatIMGGz {
		mode = 0o444 // no kernel and no launch line starts it
	}
	mode &^= i.fs.unreadable(&i.img)
	if r, err := i.fs.cat.Remote(i.remote); err == nil && r.Policy.Overwrite && i.fs.writable(r) {
		mode |= 0o200
	}
	when := i.img.Modified
	if when.IsZero() {
		when = undated(&i.img)
	}
	size := i.size.Load()
	return Attr{Ino: i.ino, Mode: mode, Size: size, ModTime: when, Changes: size < 0}
}

// unreadable returns the permissions that the mount must not give on an image whose
// file on this machine others may not read. The group of the files in the mount is
// mostly another than that of the file.
func (f *FS) unreadable(img *backends.Image) (mode fs.FileMode) {
	if img.Mode == 0 || img.Mode&0o004 != 0 {
		return 0
	}
	mode = 0o007
	if img.Mode&0o040 == 0 || img.GID != f.opts.GID {
		mode |= 0o070
	}
	return mode
}

// undated returns the time of an image of which nobody tells one: the same at each
// start and for every client, so that copying tools do not copy it again, and another
// for another version, so that they do then. It lies in January 1980, which nobody
// takes for a date (zip files know none before).
func undated(img *backends.Image) time.Time {
	var space [128]byte
	const january = 31 * 24 * 60 * 60 // seconds
	return time.Unix(315532800+int64(inodeOf(catalog.AppendVersion(space[:0], img))%january), 0)
}

func imageIno(remote string, img *backends.Image) uint64 {
	var space [512]byte
	b := appendParts(space[:0], "image", remote, img.Ref.Collection, img.Ref.Name, img.Ref.Tag)
	return inodeOf(catalog.AppendVersion(b, img))
}

// Whole reports whether all bytes are here and verified, or lie in a local file:
// whether Open would return a blob that has a File.
func (i *Image) Whole() bool {
	return i.fs.cat.BlobInfo(i.remote, i.img).State == cache.Cached
}

// Epoch is that of the bytes that are here, see cache.Info.
func (i *Image) Epoch() cache.Epoch { return i.fs.cat.BlobInfo(i.remote, i.img).Epoch }

// Open opens the image for reading. The caller closes the blob. Of an image that is
// being changed in place the change is not seen, unless it ends at this moment.
//
// Errors: ErrRetry if the name means another image since a moment ago; those of
// backends.Backend.Open; the local disk's.
func (i *Image) Open(ctx context.Context) (*cache.Blob, error) {
	dir := &Dir{fs: i.fs, remote: i.remote, collection: i.img.Ref.Collection}
	for _, draft := range i.fs.standing(dir.place(i.fs.opts.Names.fileName(i.img.Ref, i.img.Format))) {
		over, err := draft.awaitEnd(ctx)
		if err != nil {
			return nil, err
		}
		if over {
			return nil, ErrRetry
		}
	}
	return i.open(ctx)
}

func (i *Image) open(ctx context.Context) (*cache.Blob, error) {
	if i.img.Version == "" { // see Dir.Glimpse
		if _, err := i.fs.cat.Lookup(ctx, i.remote, i.img.Ref); err != nil {
			return nil, err
		}
		return nil, ErrRetry
	}
	blob, err := i.fs.cat.Blob(ctx, i.remote, i.img)
	if err != nil {
		return nil, err
	}
	if i.fs.opts.OpenWait {
		if err := blob.Wait(ctx, nil); err != nil {
			_ = blob.Close()
			return nil, err
		}
	}
	i.size.Store(blob.Size())
	i.failure.Store(nil)
	return blob, nil
}

// Fail notes what an operation on the file ended with, for its attribute "error". An
// opening that succeeds ends that.
func (i *Image) Fail(err error) {
	if err != nil && !errors.Is(err, ErrRetry) && !errors.Is(err, context.Canceled) {
		i.failure.Store(&err)
	}
}

// Measure learns the size where the registry does not tell it, which takes as long
// as opening the image: it is whole here then.
//
// Errors: those of Open.
func (i *Image) Measure(ctx context.Context) error {
	if i.size.Load() >= 0 {
		return nil
	}
	blob, err := i.Open(ctx)
	if err != nil {
		return err
	}
	return blob.Close()
}

// OpenWrite makes a draft that is to replace the image. The draft is another
// file than the image, which whoever reads goes on reading; so success is
// ErrRetry: when that caller looks up the name again it finds the draft, and
// opens that.
//
// Without truncate the draft begins as a copy of the image, and is that which
// somebody changes in place already, if so. With truncate it is made also where
// nothing may be replaced: the same bytes may be copied again.
//
// Errors: ErrRetry; ErrBusy; backends.ErrReadOnly, ErrNotAllowed; those of
// catalog.Create and of Open.
func (i *Image) OpenWrite(ctx context.Context, who Caller, truncate bool) error {
	r, err := i.fs.writableRemote(i.remote)
	if err != nil {
		return err
	}
	if !r.Policy.Overwrite && !truncate {
		return uploads.Taken(i.remote, i.img.Ref) // what is changed in place is another image
	}
	dir := &Dir{fs: i.fs, remote: i.remote, collection: i.img.Ref.Collection}
	name := i.fs.opts.Names.fileName(i.img.Ref, i.img.Format)
	if !truncate && i.fs.join(dir.place(name), who) {
		return ErrRetry
	}
	begin := beginning{in: dir, name: name, who: who, replaces: i}
	if truncate {
		if _, err := i.fs.start(ctx, begin); err != nil {
			return err
		}
		return ErrRetry
	}
	draft, err := i.fs.begin(ctx, begin)
	if err != nil {
		return err
	}
	if err := i.copyTo(ctx, draft); err != nil {
		draft.drop() //nolint:errcheck // the copy's error is the one to tell
		if now, lookErr := dir.Lookup(ctx, name, who); errors.Is(err, ErrRetry) && lookErr == nil {
			if other, ok := now.(*Image); ok && other.img.Version != i.img.Version {
				return other.OpenWrite(ctx, who, truncate) // not with the next look: the kernel gives up then
			}
		}
		return err
	}
	if i.fs.join(dir.place(name), who) { // somebody else was faster
		draft.drop() //nolint:errcheck // it is a copy
		return ErrRetry
	}
	if err := i.fs.place(draft); err != nil {
		return err
	}
	return ErrRetry
}

// join lets the caller find the draft at that place which somebody changes in place, or is
// about to open.
func (f *FS) join(p place, who Caller) bool {
	for _, d := range f.standing(p) {
		d.mu.Lock()
		joined := (len(d.writers) > 0 || d.claimed()) && !d.over() && !d.accepted() && d.data.Info().Target.InPlace
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
	when := i.Attr().ModTime // until it is written
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

// SetAttr accepts what a copying tool sets once more after close, and changes
// nothing: times and permissions are the registry's. A size must be the one
// that the image has.
//
// Errors: backends.ErrReadOnly; backends.ErrNotAllowed for a size.
func (i *Image) SetAttr(change AttrChange) error {
	if _, err := i.fs.writableRemote(i.remote); err != nil {
		return err
	}
	if change.Size != nil && *change.Size != i.size.Load() {
		return fmt.Errorf("%w: an image's size", backends.ErrNotAllowed)
	}
	return nil
}
