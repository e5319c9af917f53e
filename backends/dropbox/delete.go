// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"slices"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
)

// Delete implements backends.Deleter. The name is gone afterwards, so all files
// that it is are; with img.Ref.Version set only the one of that version. Dropbox
// keeps what was deleted for a while. Folders stay.
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	all, err := c.find(ctx, img.Ref)
	if err != nil {
		return err
	}
	if p, _ := names.Parse(all[0].Name); !p.Is(img.Ref) {
		return backends.NotFound("no such image")
	}
	if img.Ref.Version != "" {
		i := slices.IndexFunc(all, func(f *files.FileMetadata) bool { return f.Rev == img.Version })
		if i < 0 {
			return backends.ErrChanged // an older rev of a file goes with the file only
		}
		return c.remove(ctx, all[i])
	}
	if all[0].Rev != img.Version {
		return backends.ErrChanged
	}
	// The one that the name means goes last: broken off half-way, it still does.
	for _, f := range slices.Backward(all) {
		if err := c.remove(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a file, if it still has its rev.
// Errors: backends.ErrChanged if not.
func (c *client) remove(ctx context.Context, f *files.FileMetadata) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	arg := files.NewDeleteArg(f.PathDisplay)
	arg.ParentRev = f.Rev
	_, err = c.files.DeleteV2Context(ctx, arg)
	if err = translate(ctx, err); has(err, "conflict") {
		return backends.ErrChanged
	}
	return err
}
