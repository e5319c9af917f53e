// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// Move gives an image another name at its service, provided that its name still means
// it. Nothing is copied. It does not look at Policy.Delete, but the new name is taken
// only as Target allows.
//
// Errors: those of Target; errors.ErrUnsupported if the service cannot; those of
// backends.Mover.
func (c *Catalog) Move(ctx context.Context, remote string, img backends.Image, to backends.Ref, excl bool) error {
	r, err := c.live(remote)
	if err != nil {
		return err
	}
	if !r.Client.Caps().Has(backends.CanMove) {
		return &backends.Error{Op: "move", Remote: remote, Ref: img.Ref, Err: errors.ErrUnsupported}
	}
	target, err := c.Target(ctx, remote, to, img.Format, excl)
	if err == nil && target.Replaces == spool.OnlySame {
		err = Taken(remote, to)
	}
	if err != nil {
		return err
	}
	release, err := c.uploads.turns.Lock(ctx, string(imageKey(remote, to)))
	if err != nil {
		return err
	}
	defer release()
	now, err := r.Client.Move(ctx, img, to, target.Replaces)
	c.health.note(remote, err, c.now())
	if errors.Is(err, backends.ErrChanged) {
		c.outdated(r, img.Ref)
		c.outdated(r, to)
	}
	if err != nil {
		return err
	}
	if isSHA256(img.Digest) {
		now.Digest, now.Size = img.Digest, img.Size // the bytes are the same
	}
	var s Store
	if !r.atHand() {
		if s, err = c.store(); err != nil {
			return err
		}
	}
	c.published(s, r, to, clean(now))
	return c.deleted(r, img.Ref)
}
