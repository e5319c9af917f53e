// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// Create starts a draft that will be published as ref. What can be refused
// early is refused here, before a byte is copied.
//
// Errors: those of Target; those of spool.Spool.Create.
func (c *Catalog) Create(ctx context.Context, remote string, ref backends.Ref, format string, excl bool) (*spool.Draft, error) {
	before := c.uploads.published.Load()
	target, err := c.Target(ctx, remote, ref, format, excl)
	if err != nil {
		return nil, err
	}
	d, err := c.Stage(target)
	// What was published before the draft was there, rebase did not tell it of.
	for now := c.uploads.published.Load(); err == nil && now != before; now = c.uploads.published.Load() {
		before = now
		if target, err = c.Target(ctx, remote, ref, format, excl); err == nil {
			err = d.Retarget(target)
		}
		if err != nil {
			return nil, errors.Join(err, d.Remove(), d.Close())
		}
	}
	return d, err
}

// Stage starts a draft without asking whether its target may be published: for
// files that only pass through, as the temporary ones of copying tools do.
// Before they are published they get a target from Target (spool.Draft.Retarget).
//
// Errors: those of spool.Spool.Create.
func (c *Catalog) Stage(target spool.Target) (*spool.Draft, error) {
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	d, err := s.Spool.Create(target)
	if err == nil {
		d.Supersede()
	}
	return d, err
}

// Target says where a draft for ref is to be published, after the checks that
// need not wait for the bytes: may it be written, is the name possible, is the
// tag free or may it be replaced. What the tag means now is what the draft will
// replace: if it is another version by the time of publishing, that fails. If it may
// not be replaced, Publish takes the same bytes only: see Taken.
//
// Errors: backends.ErrReadOnly, ErrUnauthorized; fs.ErrInvalid for a name that
// the registry cannot hold; fs.ErrExist if the tag is taken and excl is set.
func (c *Catalog) Target(ctx context.Context, remote string, ref backends.Ref, format string, excl bool) (spool.Target, error) {
	fail := func(err error) (spool.Target, error) {
		return spool.Target{}, &backends.Error{Op: "create", Remote: remote, Ref: ref, Err: err}
	}
	r, err := c.live(remote)
	if err != nil {
		return spool.Target{}, err
	}
	if err := r.takes(ref); err != nil {
		return fail(err)
	}
	target := spool.Target{Remote: remote, Ref: ref, Format: format, Async: r.Policy.Async}
	img, err := c.current(ctx, r, ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, nil
	case err != nil && r.Policy.Async && passing(err):
		return target, nil // it is published when the registry is back, and checked then
	case err != nil:
		return spool.Target{}, err
	}
	if err := backends.SameName(ref, img.Ref); err != nil {
		return fail(err)
	}
	switch {
	case excl:
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

// takes returns why ref cannot be pushed to the remote, if it cannot.
func (r Remote) takes(ref backends.Ref) error {
	if err := r.writable(); err != nil {
		return err
	}
	err := r.Client.CheckPush(ref)
	if wrapped, ok := errors.AsType[*backends.Error](err); ok {
		return wrapped.Err // the caller says what was being done
	}
	return err
}

// current is Lookup for those who are about to replace the image: its version
// must not be out of date.
func (c *Catalog) current(ctx context.Context, r Remote, ref backends.Ref) (backends.Image, error) {
	if r.atHand() {
		return c.statNow(ctx, r, ref)
	}
	s, err := c.store()
	if err != nil {
		return backends.Image{}, err
	}
	if c.believedAbsent(r.Name, ref) {
		return backends.Image{}, missing(r.Name, ref)
	}
	img, err := c.ask(ctx, s, r, ref)
	if err != nil && passing(err) && r.Policy.Async {
		if e, ok := readEntry(s, r.Name, ref); ok && e.is(full) {
			return e.image, nil
		}
	}
	return img, err
}
