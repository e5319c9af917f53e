// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"

	"github.com/sregfs/sregfs/backends"
)

// Tag makes another tag mean img, provided that its name still means it; see
// backends.Tagger. It does not look at Policy.Overwrite.
//
// Errors: backends.ErrReadOnly; those of backends.Tagger.
func (c *changes) Tag(ctx context.Context, remote string, img backends.Image, tag, replaces string) (backends.Image, error) {
	r, err := c.Live(remote)
	if err != nil {
		return backends.Image{}, err
	}
	to := img.Ref
	to.Tag, to.Version = tag, ""
	if err := r.ReadOnly(); err != nil {
		return backends.Image{}, &backends.Error{Op: "tag", Remote: remote, Ref: to, Err: err}
	}
	now, err := r.Client.Tag(ctx, img, tag, replaces)
	c.Note(remote, err)
	if errors.Is(err, backends.ErrChanged) {
		c.Outdated(r, img.Ref)
		c.Outdated(r, to)
	}
	if err != nil {
		return backends.Image{}, err
	}
	c.Published(r, to, now)
	return now, nil
}

// Untag takes the tag of img away and keeps the version; see backends.Untagger.
//
// Errors: those of Delete.
func (c *changes) Untag(ctx context.Context, remote string, img backends.Image) error {
	return c.remove(ctx, remote, img, "untag", (*backends.Client).Untag)
}
