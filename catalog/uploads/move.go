// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

// Move renames an image at its service, within the destination's remote, provided that its
// name still means it. Nothing is copied. It does not look at Policy.Delete; the new
// name must be one that Target allows.
//
// Errors: those of Target; errors.ErrUnsupported if the service cannot; those of
// backends.Mover.
func (u *Uploads) Move(ctx context.Context, img backends.Image, to Destination) error {
	r, err := u.cat.Live(to.Remote)
	if err != nil {
		return err
	}
	if !r.Client.Caps().Has(backends.CanMove) {
		return &backends.Error{Op: "move", Remote: to.Remote, Ref: img.Ref, Err: errors.ErrUnsupported}
	}
	target, err := u.Target(ctx, to)
	if err == nil && target.Replaces == spool.OnlySame {
		err = Taken(to.Remote, to.Ref)
	}
	if err != nil {
		return err
	}
	release, err := u.turns.Lock(ctx, nameOf(to.Remote, to.Ref))
	if err != nil {
		return err
	}
	defer release()
	now, err := r.Client.Move(ctx, img, to.Ref, target.Replaces)
	u.cat.Note(to.Remote, err)
	if errors.Is(err, backends.ErrChanged) {
		u.cat.Outdated(r, img.Ref)
		u.cat.Outdated(r, to.Ref)
	}
	if err != nil {
		return err
	}
	if index.IsSHA256(img.Digest) {
		now.Digest, now.Size = img.Digest, img.Size // the bytes are the same
	}
	u.cat.Published(r, to.Ref, index.Clean(now))
	return u.cat.Deleted(r, img.Ref)
}
