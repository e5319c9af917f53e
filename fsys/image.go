// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
)

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
		mode = 0o444 // it cannot be executed
	}
	mode &^= i.fs.hiddenMode(&i.img)
	if r, err := i.fs.cat.Remote(i.remote); err == nil && r.Policy.Overwrite && i.fs.canPush(r) && !i.found {
		mode |= 0o200
	}
	when := i.img.Modified
	if when.IsZero() {
		when = placeholderTime(&i.img)
	}
	size := i.size.Load()
	return Attr{Ino: i.ino, Mode: mode, Size: size, ModTime: when, Changes: size < 0}
}

// hiddenMode returns the permissions that the mount must not show of an image whose file
// on this machine is not readable by everybody. The group permissions are kept only if
// the files in the mount have the group of the file.
func (f *FS) hiddenMode(img *backends.Image) (mode fs.FileMode) {
	if img.Mode == 0 || img.Mode&0o004 != 0 {
		return 0
	}
	mode = 0o007
	if img.Mode&0o040 == 0 || img.GID != f.opts.GID {
		mode |= 0o070
	}
	return mode
}

// placeholderTime returns a modification time for an image that has none. It is the same
// after each start and on every machine, so that copying tools do not copy the image
// again, and differs between versions, so that they do copy a new one. It is in January
// 1980, the first month of zip's calendar, which nobody takes for a real date.
func placeholderTime(img *backends.Image) time.Time {
	var space [128]byte
	const january = 31 * 24 * 60 * 60 // seconds
	return time.Unix(315532800+int64(inodeOf(catalog.AppendVersion(space[:0], img))%january), 0)
}

func imageIno(remote string, img *backends.Image) uint64 {
	var space [512]byte
	b := appendParts(space[:0], "image", remote, img.Ref.Collection, img.Ref.Name, img.Ref.Tag)
	b = appendForm(b, img.Format)
	return inodeOf(catalog.AppendVersion(b, img))
}

// appendForm tells an archive from the SIF of the same version.
func appendForm(b []byte, format string) []byte {
	if format == backends.FormatArchive {
		b = appendParts(b, format)
	}
	return b
}

// Whole reports whether all bytes are here and verified, or in a local file: whether Open
// would return a blob that has a File.
func (i *Image) Whole() bool {
	return i.fs.cat.BlobInfo(i.remote, i.img).State == cache.Cached
}

// Epoch is that of the bytes that are here, see cache.Info.
func (i *Image) Epoch() cache.Epoch { return i.fs.cat.BlobInfo(i.remote, i.img).Epoch }

// Open opens the image for reading. The caller closes the blob. While the image is being
// changed in place, Open returns the old bytes; but if that ends just now, Open waits for
// the new image.
//
// Errors: ErrRetry if the name means another image since a moment ago; those of
// backends.Backend.Open; the local disk's.
func (i *Image) Open(ctx context.Context) (*cache.Blob, error) {
	dir := &Dir{fs: i.fs, remote: i.remote, collection: i.img.Ref.Collection}
	for _, draft := range i.fs.draftsAt(dir.locate(i.fs.opts.Names.fileName(i.img.Ref, i.img.Format))) {
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
	if i.img.Version == "" { // see Dir.LookupListed
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

// RecordError notes the error of an operation on the file, which its attribute "error"
// shows until the next successful open.
func (i *Image) RecordError(err error) {
	if err != nil && !errors.Is(err, ErrRetry) && !errors.Is(err, context.Canceled) {
		i.failure.Store(&err)
		i.fs.cat.Failed(i.remote, i.img, err)
	}
}

// LearnSize learns the size of an image whose registry does not tell it. That takes as
// long as fetching the whole image.
//
// Errors: those of Open.
func (i *Image) LearnSize(ctx context.Context) error {
	if i.size.Load() >= 0 {
		return nil
	}
	blob, err := i.Open(ctx)
	if err != nil {
		return err
	}
	return blob.Close()
}

// packLabels puts labels into one string, a tenth of what a map takes.
func packLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	var b []byte
	for name, value := range labels {
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	}
	return string(b)
}

// labelsIn yields what packLabels packed.
func labelsIn(packed string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		rest := []byte(packed)
		next := func() string {
			n, size := binary.Uvarint(rest)
			part := string(rest[size : size+int(n)])
			rest = rest[size+int(n):]
			return part
		}
		for len(rest) > 0 {
			if !yield(next(), next()) {
				return
			}
		}
	}
}
