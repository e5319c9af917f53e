// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// A Destination is where a file is to be published.
type Destination struct {
	Remote    string
	Ref       backends.Ref
	Format    string // as backends.Image has it
	Exclusive bool   // the name must be free
}

// Create starts a draft that will be published at that destination. What can be refused
// early is refused here, before a byte is copied.
//
// Errors: those of Target; those of spool.Spool.Create.
func (u *Uploads) Create(ctx context.Context, to Destination) (*spool.Draft, error) {
	before := u.published.Load()
	target, err := u.Target(ctx, to)
	if err != nil {
		return nil, err
	}
	d, err := u.Stage(target)
	// rebase could not change a draft that was not there yet.
	for now := u.published.Load(); err == nil && now != before; now = u.published.Load() {
		before = now
		if target, err = u.Target(ctx, to); err == nil {
			err = d.Retarget(target)
		}
		if err != nil {
			return nil, errors.Join(err, d.Remove(), d.Close())
		}
	}
	return d, err
}

// Stage starts a draft without asking whether its target may be published: copying
// tools write to a temporary name first. Before it is published it gets a target
// from Target (spool.Draft.Retarget).
//
// Errors: those of spool.Spool.Create.
func (u *Uploads) Stage(target spool.Target) (*spool.Draft, error) {
	s, err := u.cat.State()
	if err != nil {
		return nil, err
	}
	d, err := s.Spool.Create(target)
	if err == nil {
		d.Supersede()
	}
	return d, err
}

// Target says what a draft for that destination replaces, after the checks that
// need not wait for the bytes: may it be written, is the name possible, is the
// tag free or may it be replaced. What the tag means now is what the draft will
// replace: if it is another version by the time of publishing, that fails. If it may
// not be replaced, Publish takes the same bytes only: see Taken.
//
// Errors: backends.ErrReadOnly, ErrUnauthorized; fs.ErrInvalid for a name that
// the registry cannot hold; fs.ErrExist if the tag is taken and to is Exclusive.
func (u *Uploads) Target(ctx context.Context, to Destination) (spool.Target, error) {
	fail := func(err error) (spool.Target, error) {
		return spool.Target{}, &backends.Error{Op: "create", Remote: to.Remote, Ref: to.Ref, Err: err}
	}
	r, err := u.cat.Live(to.Remote)
	if err != nil {
		return spool.Target{}, err
	}
	if err := r.Takes(to.Ref); err != nil {
		return fail(err)
	}
	target := spool.Target{Remote: to.Remote, Ref: to.Ref, Format: to.Format, Async: r.Policy.Async}
	img, err := u.cat.Current(ctx, r, to.Ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, nil
	case err != nil && r.Policy.Async && catalog.Passing(err):
		return target, nil // it is published when the registry is back, and checked then
	case err != nil:
		return spool.Target{}, err
	}
	if err := backends.SameName(to.Ref, img.Ref); err != nil {
		return fail(err)
	}
	switch {
	case to.Exclusive:
		return fail(backends.Saying(fs.ErrExist, "the tag is taken"))
	case !r.Policy.Overwrite:
		target.Replaces = spool.OnlySame
	default:
		target.Replaces = img.Version
	}
	return target, nil
}

// Taken is the error of replacing an image by other bytes where the configuration
// forbids that: a backends.ErrNotAllowed.
func Taken(remote string, ref backends.Ref) error {
	return &backends.Error{Op: "create", Remote: remote, Ref: ref, Err: fmt.Errorf(
		"%w: the tag is taken by another image (allow_overwrite of the remote, or --allow-overwrite, permits replacing it)", backends.ErrNotAllowed)}
}

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
		return &backends.Error{Op: "move", Remote: to.Remote, Ref: img.Ref, Err: fmt.Errorf("%w: %s cannot rename this image (sreg cp copies it, sreg rm removes the old name)", errors.ErrUnsupported, to.Remote)}
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
