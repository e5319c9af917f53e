// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/vsif"
)

// As returns img, which Lookup gave, in the format that a file's extension asks for: a
// container image that is a SIF is an archive, too, of the same layers. All other images
// have one format, and are returned as they are, whatever the extension.
//
// The archive has the ref of img, so that what is done to the name is done to the image.
//
// Errors: those of Lookup.
func (c *images) As(ctx context.Context, remote string, img backends.Image, format string) (backends.Image, error) {
	manifest, ok := strings.CutPrefix(img.Digest, vsif.Algorithm+":")
	if !ok || format != backends.FormatArchive {
		return img, nil
	}
	// By its own digest: the tag may mean another image by now, and the index has a key for it.
	ref := img.Ref
	ref.Version = archive.Algorithm + ":" + manifest
	other, err := c.Lookup(ctx, remote, ref)
	other.Ref = img.Ref
	return other, err
}

// HasForms reports whether an image has another form, which As returns.
func HasForms(img *backends.Image) bool { return vsif.IsDigest(img.Digest) }

// Failed notes with what error opening or reading an image has ended. If no file can be made
// of its layers, its name means an archive from now on, which is looked at in the background:
// its listed name is another one.
func (c *images) Failed(remote string, img backends.Image, err error) {
	if !vsif.IsDigest(img.Digest) || !errors.Is(err, vsif.ErrLayer) {
		return
	}
	s, stateErr := c.store()
	if stateErr != nil {
		return
	}
	c.doubt(s, remote, img.Ref)
	c.tasks.start(func(ctx context.Context) {
		if _, err := c.Lookup(ctx, remote, img.Ref); err != nil {
			c.opts.Log.Debug("an image that is an archive by now was not looked at", "remote", remote, "image", img.Ref.String(), "err", err)
		}
	})
}
