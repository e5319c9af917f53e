// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
	paths "github.com/sregfs/sregfs/backends/internal/files"
)

// revision is what a rev looks like (files.stone, Rev).
var revision = regexp.MustCompile(`^[0-9a-f]{9,64}$`)

// Stat implements backends.Backend. As a version it takes a rev of Dropbox, or
// what stands after "@" in a file's name. A name in another case than the
// file's is found too; the answer has the file's.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	if ref.Version != "" {
		return c.statVersion(ctx, ref)
	}
	// What Push writes goes first, so that most names cost one request.
	f, err := c.metadata(ctx, c.path(ref, backends.FormatSIF))
	if err == nil {
		return c.image(ctx, f)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return backends.Image{}, err
	}
	found, err := c.find(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	img, err := c.image(ctx, found[0])
	if p, _ := names.Parse(found[0].Name); err == nil && p.IsOld(ref) {
		img.Ref.Name, img.Ref.Tag = ref.Name, ref.Tag // that name, as it was once written
	}
	return img, err
}

func (c *client) statVersion(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	plain := ref
	plain.Version = ""
	if revision.MatchString(ref.Version) {
		f, err := c.metadata(ctx, "rev:"+ref.Version)
		if err == nil {
			if img, err := c.image(ctx, f); err == nil && strings.EqualFold(img.Ref.String(), plain.String()) {
				return img, nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			return backends.Image{}, err
		}
	}
	found, err := c.find(ctx, plain)
	if err != nil {
		return backends.Image{}, err
	}
	for _, f := range found {
		p, _ := names.Parse(f.Name)
		if p.Version == ref.Version || f.Rev == ref.Version || p.Version != "" && strings.HasSuffix(ref.Version, ":"+p.Version) {
			return c.image(ctx, f)
		}
	}
	return backends.Image{}, backends.NotFound("no such version")
}

// metadata returns the file at a path.
// Errors: fs.ErrNotExist also for a folder.
func (c *client) metadata(ctx context.Context, path string) (*files.FileMetadata, error) {
	entry, err := c.files.GetMetadataContext(ctx, files.NewGetMetadataArg(path))
	if err != nil {
		return nil, translate(ctx, err)
	}
	f, ok := entry.(*files.FileMetadata)
	switch {
	case entry == nil:
		return nil, fmt.Errorf("%w: metadata without a kind", backends.ErrBadAnswer)
	case !ok || !f.IsDownloadable:
		return nil, backends.NotFound("not a file")
	}
	return f, checkFile(f)
}

// checkFile looks whether what a service says of a file can be.
func checkFile(f *files.FileMetadata) error {
	if f == nil {
		return fmt.Errorf("%w: no metadata", backends.ErrBadAnswer)
	}
	if !revision.MatchString(f.Rev) || f.Size > math.MaxInt64 || f.Name == "" {
		return fmt.Errorf("%w: a file %.80q with rev %.80q and %d bytes", backends.ErrBadAnswer, f.Name, f.Rev, f.Size)
	}
	return nil
}

// find returns all files that ref is: what it means now first.
// Errors: fs.ErrNotExist if there is none.
func (c *client) find(ctx context.Context, ref backends.Ref) ([]*files.FileMetadata, error) {
	f, err := c.folder(ctx, ref.Collection)
	if err != nil {
		return nil, err
	}
	found := f.refs()[backends.Ref{Collection: ref.Collection, Name: ref.Name, Tag: ref.Tag}]
	if len(found) == 0 {
		for _, old := range f.files {
			if p, _ := names.Parse(old.Name); p.IsOld(ref) {
				found = append(found, old)
			}
		}
		sortFiles(found)
	}
	if len(found) == 0 {
		return nil, backends.NotFound("no such image")
	}
	return found, nil
}

// sortFiles brings the one that their name means to the front.
func sortFiles(all []*files.FileMetadata) {
	slices.SortFunc(all, func(a, b *files.FileMetadata) int {
		return cmp.Or(rank(a)-rank(b), time.Time(b.ServerModified).Compare(time.Time(a.ServerModified)), cmp.Compare(a.Name, b.Name))
	})
}

// rank orders the spellings of one name.
func rank(f *files.FileMetadata) int {
	p, _ := names.Parse(f.Name)
	ref := backends.Ref{Name: p.Name, Tag: p.Tag}
	switch f.Name {
	case names.Base(ref, backends.FormatSIF):
		return 0
	case names.Base(ref, backends.FormatSIMG):
		return 1
	}
	if p.Version == "" {
		return 2
	}
	return 3
}

// image returns what f is.
func (c *client) image(ctx context.Context, f *files.FileMetadata) (backends.Image, error) {
	p, ok := names.Parse(f.Name)
	if !ok {
		return backends.Image{}, backends.NotFound("not an image")
	}
	collection, err := c.spell(ctx, parent(f.PathDisplay))
	if err != nil {
		return backends.Image{}, err
	}
	return makeImage(collection, p, f), nil
}

func makeImage(collection string, p paths.Parsed, f *files.FileMetadata) backends.Image {
	return backends.Image{
		Ref:      backends.Ref{Collection: collection, Name: p.Name, Tag: p.Tag},
		Size:     int64(f.Size),
		Version:  f.Rev,
		Modified: time.Time(f.ClientModified), // of the file that was copied
		URL:      f.PreviewUrl,
		Format:   p.Format,
	}
}

// Open implements backends.Backend. The bytes are read by their rev, which
// Dropbox keeps for a while after the file was replaced.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	}
	if !revision.MatchString(img.Version) {
		return nil, backends.ErrChanged
	}
	if img.Size >= 0 {
		if rest := max(img.Size-off, 0); n < 0 || n > rest {
			n = rest
		}
	}
	if n == 0 {
		return http.NoBody, nil
	}
	arg := files.NewDownloadArg("rev:" + img.Version)
	whole := off == 0 && (n < 0 || n == img.Size)
	if !whole {
		if err := setRange(arg, off, n); err != nil {
			return nil, err
		}
	}
	f, body, err := c.files.DownloadContext(ctx, arg)
	if err != nil {
		return nil, gone(translate(ctx, err))
	}
	if err := checkFile(f); err != nil {
		body.Close()
		return nil, err
	}
	if f.Rev != img.Version || img.Size >= 0 && int64(f.Size) != img.Size {
		body.Close()
		return nil, fmt.Errorf("%w: asked for rev %s of %d bytes, got %s of %d", backends.ErrBadAnswer, img.Version, img.Size, f.Rev, f.Size)
	}
	if whole && len(f.ContentHash) == 64 {
		return &checkedBody{ReadCloser: body, hash: newContentHash(), want: f.ContentHash, left: int64(f.Size)}, nil
	}
	return body, nil
}

// gone says that a version which is not there is not there any more.
func gone(err error) error {
	if _, ok := errors.AsType[*apiError](err); ok && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %v", backends.ErrChanged, err)
	}
	return err
}

func setRange(arg *files.DownloadArg, off, n int64) error {
	err := files.SetRange(arg, off)
	if n > 0 {
		err = files.SetRangeLength(arg, off, n)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	return nil
}
