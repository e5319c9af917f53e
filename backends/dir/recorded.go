// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A recorded image is one that only a record tells of.
type recorded struct {
	record
	ref  backends.Ref
	info fs.FileInfo // of its file; nil for one at a URL
}

// there returns the image of a record, if there is one: records outlive the files that
// they name.
func (r record) there(ref backends.Ref) (recorded, bool) {
	ref.Tag, ref.Version = r.Tag, ""
	if r.Path == "" {
		return recorded{record: r, ref: ref}, r.URL != ""
	}
	info, err := os.Stat(r.Path)
	return recorded{r, ref, info}, err == nil && info.Mode().IsRegular()
}

// recorded returns what ref means among the records.
// Errors: fs.ErrNotExist; those of hash.
func (v *view) recorded(ctx context.Context, ref backends.Ref) (recorded, error) {
	known := v.records.image(ctx, ref.Collection, ref.Name)
	// Its own tag first, as with files.
	slices.SortStableFunc(known, func(a, b record) int { return boolCompare(a.Tag != ref.Tag, b.Tag != ref.Tag) })
	for _, rec := range known {
		if ref.Version == "" && rec.Tag != ref.Tag {
			break
		}
		img, ok := rec.there(ref)
		if !ok {
			continue
		}
		is, err := v.recordIs(ctx, img, ref.Version)
		if is || err != nil {
			return img, err
		}
	}
	return recorded{}, backends.NotFound("no such image")
}

// recordIs is hasVersion for a record. What the client called the version is one, but no
// digest is believed.
func (v *view) recordIs(ctx context.Context, r recorded, version string) (bool, error) {
	digest, isDigest := isHash(version)
	switch {
	case version == "", version == r.version(v):
		return true, nil
	case !isDigest || r.info == nil:
		return r.Version != "" && version == r.Version, nil
	}
	in, err := r.open()
	if err != nil {
		return false, nil //nolint:nilerr // then it is not known to be
	}
	defer in.Close()
	got, err := v.hashOpen(ctx, in)
	if errors.Is(err, backends.ErrChanged) {
		return false, nil
	}
	return got == digest, localError(err)
}

// version is that of the bytes.
func (r recorded) version(v *view) string {
	if r.info != nil {
		return versionOf(r.info)
	}
	return v.urls.known(r.URL).version(r.URL)
}

// open opens the file, through links: whoever made the record chose it.
func (r recorded) open() (*os.File, error) {
	return backends.OpenRegular(r.Path, os.O_RDONLY, 0)
}

// image makes of it what others see. Of what is at a URL it tells what was learnt there.
func (r recorded) image(v *view) backends.Image {
	img := backends.Image{Ref: r.ref, Labels: r.told(), Version: r.version(v)}
	if r.info != nil {
		img.Size, img.Modified, img.Format = r.info.Size(), r.info.ModTime(), formatOf(filepath.Base(r.Path))
		img.Mode, img.GID = r.info.Mode().Perm(), group(r.info)
		img.Digest = v.digests.of(fileStateOf(r.info))
		img.URL = fileURL(r.Path)
		return img
	}
	known := v.urls.known(r.URL)
	img.Size, img.Modified, img.URL = known.size(), known.Modified, r.URL
	if img.Modified.IsZero() {
		img.Modified = r.Created
	}
	if u, err := url.Parse(r.URL); err == nil {
		img.Format = formatOf(path.Base(u.Path))
	}
	return img
}

func fileURL(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// formatOf returns what the extension of a name says; "" if nothing.
func formatOf(base string) string {
	format := split(base).format
	if backends.IsPlain(format) {
		return ""
	}
	return format
}

// statRecorded is Stat for what no file of the store is.
func (c *client) statRecorded(ctx context.Context, v *view, ref backends.Ref) (backends.Image, error) {
	r, err := v.recorded(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	if r.info == nil {
		if err := v.urls.look(ctx, r.URL); err != nil {
			return backends.Image{}, err
		}
	}
	return r.image(v), nil
}

// openRecorded is OpenFile for it.
// Errors: errors.ErrUnsupported for what is at a URL.
func (c *client) openRecorded(ctx context.Context, v *view, img backends.Image) (*os.File, error) {
	ref := img.Ref
	ref.Version = img.Version
	r, err := v.recorded(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		ref.Version = ""
		if _, other := v.recorded(ctx, ref); other == nil {
			return nil, backends.ErrChanged
		}
	}
	switch {
	case err != nil:
		return nil, err
	case r.info == nil:
		return nil, errors.ErrUnsupported
	}
	f, err := r.open()
	if err != nil {
		return nil, localError(err)
	}
	info, err := f.Stat()
	if err != nil || versionOf(info) != img.Version {
		err = backends.ErrChanged
	} else {
		err = checkImage(f)
	}
	if err != nil {
		f.Close()
		return nil, localError(err)
	}
	return f, nil
}

// records yields what only the records tell of the collection that was listed.
func (l *lister) recorded(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(l.known)) {
		for _, rec := range l.known[name] {
			img, ok := rec.there(backends.Ref{Collection: l.collection, Name: name})
			if l.ended || !ok || !l.once(name+":"+rec.Tag) {
				continue
			}
			l.add(backends.Entry{Image: img.image(l.view)})
		}
	}
	for _, below := range l.records.below(ctx, l.collection) {
		child := below
		if l.collection != "" {
			child = strings.TrimPrefix(below, l.collection+"/")
		}
		child, _, _ = strings.Cut(child, "/")
		if l.ended || l.seen[child+"/"] || !l.hasRecorded(ctx, below) {
			continue
		}
		l.seen[child+"/"] = true
		if l.collection != "" {
			child = l.collection + "/" + child
		}
		l.add(backends.Entry{Collection: child})
	}
}

// hasRecorded reports whether there is any image of a collection's records.
func (l *lister) hasRecorded(ctx context.Context, collection string) bool {
	for name, known := range l.records.collection(ctx, collection) {
		for _, rec := range known {
			if _, ok := rec.there(backends.Ref{Collection: collection, Name: name}); ok {
				return true
			}
		}
	}
	return false
}

// claimed returns the names of the files at the root of the store whose collection a
// record tells: an older client kept all images there, under names that do not tell it.
func (l *lister) claimed(ctx context.Context) map[string]bool {
	names := map[string]bool{}
	for _, collection := range l.records.below(ctx, "") {
		for _, known := range l.records.collection(ctx, collection) {
			for _, rec := range known {
				if filepath.Dir(rec.Path) == l.path {
					names[filepath.Base(rec.Path)] = true
				}
			}
		}
	}
	return names
}
