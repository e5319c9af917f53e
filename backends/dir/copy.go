// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
)

// Copy implements backends.Copier, also from another directory: the copy shares the
// blocks of the file where the file system can.
func (c *client) Copy(ctx context.Context, src backends.CopySource, to backends.Ref) (backends.Image, error) {
	from, ok := src.Backend.(*client)
	if !ok {
		return backends.Image{}, fmt.Errorf("%w: it is no file of this machine", errors.ErrUnsupported)
	}
	in, err := from.OpenFile(ctx, src.Image)
	if err != nil {
		return backends.Image{}, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return backends.Image{}, localError(err)
	}
	v := from.view()
	defer v.Close()
	ref := src.Image.Ref
	ref.Version = src.Image.Version
	f, err := v.find(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	digest, err := v.hash(ctx, f)
	if err != nil {
		return backends.Image{}, localError(err)
	}
	how := backends.Source{
		Content: in, Size: info.Size(), Digest: digest, Format: src.Image.Format, Modified: info.ModTime(), Mode: info.Mode().Perm(),
		Path: in.Name(), Replaces: src.Replaces, Commit: src.Commit,
	}
	if src.Progress != nil {
		how.Progress = func(stored int64) { src.Progress(stored, how.Size) }
	}
	img, err := c.Push(ctx, to, how)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, backends.ErrChanged) {
		if now, statErr := c.Stat(ctx, to); statErr == nil && now.Size == how.Size {
			to.Version = digest
			if same, statErr := c.Stat(ctx, to); statErr == nil && same.Version == now.Version {
				return now, nil
			}
		}
	}
	return img, err
}
