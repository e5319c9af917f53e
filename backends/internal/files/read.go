// SPDX-License-Identifier: Apache-2.0

package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
)

const maxFiles = 1_000_000 // in one folder

// A Reader is the reading half of a backend: backends.Backend, Lister and NameChecker. It is
// for many goroutines at once.
type Reader struct {
	Layout
	store Store

	places bounded.Map[place, File] // where the versions are that were looked for: a range needs no question more
}

// A place is a version of a name.
type place struct {
	ref     backends.Ref
	version string
}

// NewReader returns a Reader of a store.
func NewReader(store Store, layout Layout) *Reader { return &Reader{Layout: layout, store: store} }

func (r *Reader) reader() *Reader { return r }

// Stat implements backends.Backend. As a version it takes one of the service's, what stands
// after "@" in a file's name, or a digest.
func (r *Reader) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	f, err := r.file(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	return r.image(ctx, ref, f)
}

// file returns the file that ref is.
// Errors: fs.ErrNotExist if there is none.
func (r *Reader) file(ctx context.Context, ref backends.Ref) (File, error) {
	if ref.Version != "" {
		return r.versioned(ctx, ref)
	}
	// What a push writes goes first, so that most names cost one request.
	f, err := r.store.Stat(ctx, r.Path(ref, backends.FormatSIF))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	all, err := r.find(ctx, ref)
	if err != nil {
		return File{}, err
	}
	return r.whole(ctx, all[0])
}

// whole returns all that the service tells of a file that a listing told.
func (r *Reader) whole(ctx context.Context, f File) (File, error) {
	return r.store.Stat(ctx, f.Path)
}

// versioned is file for a ref with a version.
func (r *Reader) versioned(ctx context.Context, ref backends.Ref) (File, error) {
	plain := ref
	plain.Version = ""
	if keeper, ok := r.store.(VersionKeeper); ok {
		f, err := keeper.StatVersion(ctx, r.Path(plain, backends.FormatSIF), ref.Version)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	all, err := r.find(ctx, plain)
	if err != nil {
		return File{}, err
	}
	for _, f := range all {
		p, _ := r.Parse(base(f))
		named := p.Version != "" && (p.Version == ref.Version || strings.HasSuffix(ref.Version, ":"+p.Version))
		if !named && f.Version != ref.Version && strings.HasPrefix(ref.Version, "sha256:") && f.Digest == "" {
			told, err := r.whole(ctx, f)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return File{}, err
			}
			f.Digest = told.Digest
		}
		if named || f.Version == ref.Version || f.Digest != "" && f.Digest == ref.Version {
			return r.whole(ctx, f)
		}
	}
	return File{}, backends.NotFound("no such version")
}

func base(f File) string {
	_, b := Split(f.Path)
	return b
}

var errNoCollection = backends.NotFound("no such collection")

// find returns all files that ref is: what it means now first.
//
// Errors: fs.ErrNotExist if there is none.
func (r *Reader) find(ctx context.Context, ref backends.Ref) ([]File, error) {
	var found, old []File
	err := r.each(ctx, ref.Collection, r.begins(ref.Name), func(f File) error {
		p, ok := r.Parse(base(f))
		switch {
		case f.Folder || !ok:
		case p.Is(ref):
			found = append(found, f)
		case p.IsOld(ref):
			old = append(old, f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		found = old
	}
	if len(found) == 0 {
		return nil, backends.NotFound("no such image")
	}
	r.sort(found)
	return found, nil
}

// each calls fn with what lies in a collection, which several folders can be.
//
// Errors: fs.ErrNotExist if none is, for the root as the store says it; those of fn.
func (r *Reader) each(ctx context.Context, collection, prefix string, fn func(File) error) error {
	return r.eachOf(ctx, r.store.List, collection, prefix, fn)
}

func (r *Reader) eachOf(ctx context.Context, list func(context.Context, string, string) iter.Seq2[File, error],
	collection, prefix string, fn func(File) error) error {
	exists, n := false, 0
	var gone error
	for _, folder := range r.Folders(collection) {
		missing := false
		for f, err := range list(ctx, folder, prefix) {
			if missing = errors.Is(err, fs.ErrNotExist); missing {
				gone = err
				break
			}
			if err != nil {
				return err
			}
			if n++; n > maxFiles {
				return fmt.Errorf("%w: a folder with more than %d files", backends.ErrBadAnswer, maxFiles)
			}
			if err := fn(f); err != nil {
				return err
			}
		}
		exists = exists || !missing // also if it is empty
	}
	switch {
	case exists:
		return nil
	case collection != "":
		return errNoCollection
	}
	return gone
}

// sort brings the file that their name means to the front.
func (r *Reader) sort(all []File) {
	slices.SortStableFunc(all, func(a, b File) int {
		return cmp.Or(r.rank(a)-r.rank(b), b.Modified.Compare(a.Modified), cmp.Compare(a.Path, b.Path))
	})
}

// rank orders the spellings of one name: by format, what a push would write first; those
// with a version last.
func (r *Reader) rank(f File) int {
	p, _ := r.Parse(base(f))
	if p.Version != "" {
		return 2 * len(backends.Formats())
	}
	rank := 2 * slices.Index(backends.Formats(), p.Format)
	if base(f) != r.Base(backends.Ref{Name: p.Name, Tag: p.Tag}, p.Format) {
		rank++
	}
	return rank
}

// image returns what f is, asked for as ref, and remembers where it is.
func (r *Reader) image(ctx context.Context, ref backends.Ref, f File) (backends.Image, error) {
	got, ok := r.Ref(f.Path)
	if !ok {
		return backends.Image{}, backends.NotFound("not an image")
	}
	if p, _ := r.Parse(base(f)); p.IsOld(ref) && got.Collection == ref.Collection {
		got.Name, got.Tag = ref.Name, ref.Tag // that name, as it was once written
	}
	got.Version = ""
	if f.Version == "" {
		return backends.Image{}, fmt.Errorf("%w: a file without a version", backends.ErrBadAnswer)
	}
	r.places.Put(place{got, f.Version}, f)
	return r.entry(got, f), ctx.Err()
}

// entry is an image of a listing.
func (r *Reader) entry(ref backends.Ref, f File) backends.Image {
	format := f.Format
	if p, _ := r.Parse(base(f)); format == "" {
		format = p.Format
	}
	return backends.Image{Ref: ref, Size: f.Size, Version: f.Version, Digest: f.Digest, Modified: f.Modified, URL: f.URL, Format: format}
}

// Locate returns the file of an image.
//
// Errors: those of Stat; backends.ErrChanged if it is another one now.
func (r *Reader) Locate(ctx context.Context, img backends.Image) (File, error) {
	ref := img.Ref
	ref.Version = ""
	if f, ok := r.places.Get(place{ref, img.Version}); ok {
		return f, nil
	}
	f, err := r.file(ctx, ref)
	if err == nil && f.Version == img.Version {
		r.places.Put(place{ref, img.Version}, f)
		return f, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return File{}, err
	}
	ref.Version = img.Version
	f, versionErr := r.versioned(ctx, ref)
	switch {
	case versionErr == nil && f.Version == img.Version:
		r.places.Put(place{img.Ref, img.Version}, f)
		return f, nil
	case versionErr != nil && !errors.Is(versionErr, fs.ErrNotExist):
		return File{}, versionErr
	case err != nil:
		return File{}, err
	}
	return File{}, backends.ErrChanged
}

// Current returns the file of an image, provided that the name still means it.
//
// Errors: those of Stat; backends.ErrChanged if not.
func (r *Reader) Current(ctx context.Context, img backends.Image) (File, error) {
	f, err := r.file(ctx, img.Ref)
	if err == nil && f.Version != img.Version {
		err = backends.ErrChanged
	}
	return f, err
}

// Open implements backends.Backend.
func (r *Reader) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	}
	if img.Size >= 0 {
		if rest := max(img.Size-off, 0); n < 0 || n > rest {
			n = rest
		}
	}
	if n == 0 {
		return http.NoBody, nil
	}
	f, err := r.Locate(ctx, img)
	if err != nil {
		return nil, err
	}
	f.Size = img.Size
	return r.store.Open(ctx, f, off, n)
}

// List implements backends.Lister. Of several files that are one name the one is told that
// Stat finds.
func (r *Reader) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		var folders []string
		images := map[backends.Ref][]File{}
		err := r.each(ctx, collection, "", func(f File) error {
			name := base(f)
			switch p, ok := r.Parse(name); {
			case name == "" || name[0] == '.':
			case f.Folder:
				folders = append(folders, Join(collection, r.Folder(name)))
			case ok:
				ref := backends.Ref{Collection: collection, Name: p.Name, Tag: p.Tag}
				images[ref] = append(images[ref], f)
			}
			return nil
		})
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		slices.Sort(folders)
		for _, child := range slices.Compact(folders) {
			if !yield(backends.Entry{Collection: child}, nil) {
				return
			}
		}
		for ref, all := range images {
			r.sort(all)
			if path := all[0].Path; path != r.Path(ref, backends.FormatSIF) && all[0].Version != "" {
				r.places.Put(place{ref, all[0].Version}, all[0])
			}
			if !yield(backends.Entry{Image: r.entry(ref, all[0])}, nil) {
				return
			}
		}
	}
}
