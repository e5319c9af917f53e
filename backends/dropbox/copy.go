// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
)

// Copy implements backends.Copier within the account: Dropbox copies by itself (copy_v2), to
// names that are free. What replaces something has to travel.
func (c *client) Copy(ctx context.Context, src backends.CopySource, to backends.Ref) (backends.Image, error) {
	if from, ok := src.Backend.(*client); !ok || from != c {
		return backends.Image{}, fmt.Errorf("%w: it is in no folder of this Dropbox", errors.ErrUnsupported)
	}
	all, err := c.find(ctx, src.Image.Ref)
	if err != nil {
		return backends.Image{}, err
	}
	i := slices.IndexFunc(all, func(f *files.FileMetadata) bool { return f.Rev == src.Image.Version })
	if i < 0 {
		return backends.Image{}, backends.ErrChanged
	}
	from := all[i]
	p := &push{client: c, ref: to, path: c.path(to, src.Image.Format), src: backends.Source{
		Size: int64(from.Size), Format: src.Image.Format, Replaces: src.Replaces, Commit: src.Commit,
	}}
	old, err := p.old(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	if len(old) > 0 && p.isTarget(old[0]) && from.ContentHash != "" && old[0].ContentHash == from.ContentHash {
		return p.image(ctx, old[0])
	}
	if err := p.allowed(ctx, old); err != nil {
		return backends.Image{}, err
	}
	if len(old) > 0 {
		return backends.Image{}, fmt.Errorf("%w: Dropbox copies nothing over what is there", errors.ErrUnsupported)
	}
	return p.copy(ctx, from)
}

// copy has Dropbox copy a file to the path, which is free.
func (p *push) copy(ctx context.Context, from *files.FileMetadata) (backends.Image, error) {
	unlock, err := p.lock(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	if err := p.src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	result, err := p.files.CopyV2Context(ctx, files.NewRelocationArg(from.PathDisplay, p.path))
	err = translate(ctx, err)
	switch {
	case has(err, "to") && has(err, "folder", "file_ancestor"):
		return backends.Image{}, fmt.Errorf("%w: a folder or file stands in the way of %q", fs.ErrInvalid, p.path)
	case has(err, "conflict"):
		return backends.Image{}, backends.Saying(fs.ErrExist, "the tag was taken meanwhile")
	case err != nil:
		return backends.Image{}, err
	}
	f, ok := result.Metadata.(*files.FileMetadata)
	if !ok {
		return backends.Image{}, fmt.Errorf("%w: the copy is no file", backends.ErrBadAnswer)
	}
	if err := checkFile(f); err != nil {
		return backends.Image{}, err
	}
	// It copies what is there now, which another client may just have replaced.
	if f.Size != from.Size || f.ContentHash != from.ContentHash {
		_, err := p.files.DeleteV2Context(ctx, files.NewDeleteArg(f.PathDisplay))
		return backends.Image{}, errors.Join(backends.ErrChanged, translate(ctx, err))
	}
	return p.image(ctx, f)
}
