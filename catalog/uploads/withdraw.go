// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

// ErrPublished means that an upload that was to be given up is published.
var ErrPublished = errors.New("the upload is published already")

// Withdraw makes sure that neither a draft nor an older one that is queued for the
// same name is published any more, and then calls drop, which removes the draft's
// data. An upload under way is stopped first.
//
// Errors: ErrPublished; spool.ErrInUse if an upload cannot be stopped, because the
// registry was told to publish it and has not answered yet; those of drop; ctx's.
// After an error nothing has changed, except that uploads may have to begin again.
func (u *Uploads) Withdraw(ctx context.Context, d *spool.Draft, drop func() error) error {
	s, err := u.cat.State()
	if err != nil {
		return err
	}
	info := d.Info()
	for _, older := range s.Spool.Drafts() {
		if older.ID == info.ID || !older.Queued() || older.Target.Remote != info.Target.Remote || older.Target.Ref != info.Target.Ref {
			continue
		}
		if err := u.Discard(ctx, older.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return u.withdraw(ctx, d, drop)
}

// Discard gives an upload up, and deletes its data here. A push under way is
// stopped first.
//
// Errors: fs.ErrNotExist; spool.ErrInUse while a program has the file open; those of
// Withdraw.
func (u *Uploads) Discard(ctx context.Context, id string) error {
	s, err := u.cat.State()
	if err != nil {
		return err
	}
	d, err := s.Spool.Standby(id)
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	defer shut(d)
	err = u.withdraw(ctx, d, func() error {
		err := s.Spool.Discard(id)
		if errors.Is(err, spool.ErrInUse) {
			err = fmt.Errorf("%w (in a mount, rm of its file does it)", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	return nil
}

// withdraw is Withdraw for one draft.
func (u *Uploads) withdraw(ctx context.Context, d *spool.Draft, drop func() error) error {
	tooLate, release, err := d.Withdraw()
	if err != nil {
		return err
	}
	defer release()
	if r := u.runs.stop(d.Info().ID, !tooLate); r != nil {
		if err := stopped(ctx, r); err != nil {
			return err
		}
	}
	if d.Info().InDoubt {
		if err := u.unpublished(ctx, d.Info()); err != nil {
			return err
		}
	}
	return drop()
}

// stopped waits for the end of a run that is to be given up.
func stopped(ctx context.Context, r *run) error {
	if !backends.Pause(ctx, giveUpWait, r.done) {
		return ctx.Err()
	}
	switch {
	case !r.ended():
		return fmt.Errorf("%w: the upload cannot be stopped now, its registry may be about to publish it", spool.ErrInUse)
	case r.err == nil:
		return ErrPublished
	}
	return nil
}

// unpublished asks whether the registry published an upload whose answer was lost.
// Errors: spool.ErrInUse if it did, or if that cannot be known.
func (u *Uploads) unpublished(ctx context.Context, info spool.Info) error {
	r, err := u.cat.Live(info.Target.Remote)
	if err != nil {
		return err
	}
	now, err := u.cat.Stat(ctx, r.Name, info.Target.Ref)
	switch {
	case errors.Is(err, fs.ErrNotExist),
		err == nil && now.Version == info.Target.Replaces,
		err == nil && index.IsSHA256(now.Digest) && now.Digest != info.Digest:
		return nil
	}
	return fmt.Errorf("%w: the registry may have published the upload, its answer was lost (sreg uploads retry %s finds out)", spool.ErrInUse, info.ID)
}
