// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// ErrPublished means that what was to be given up is published.
var ErrPublished = errors.New("the upload is published already")

// Withdraw makes sure that neither a draft nor an older one that is queued for the
// same name is published any more, and then calls drop, which takes the draft's data
// away. An upload under way is stopped first.
//
// Errors: ErrPublished; spool.ErrInUse if an upload cannot be stopped, because the
// registry was told to publish it and has not answered yet; those of drop; ctx's.
// After an error all is as it was, but that uploads under way may have to begin anew.
func (c *Catalog) Withdraw(ctx context.Context, d *spool.Draft, drop func() error) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	info := d.Info()
	for _, older := range s.Spool.Drafts() {
		if older.ID == info.ID || !older.Queued() || older.Target.Remote != info.Target.Remote || older.Target.Ref != info.Target.Ref {
			continue
		}
		if err := c.Discard(ctx, older.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return c.withdraw(ctx, s, info.ID, drop)
}

// Discard gives an upload up, and deletes its data here. A push under way is
// stopped first.
//
// Errors: fs.ErrNotExist; spool.ErrInUse while a program has the file open; those of
// Withdraw.
func (c *Catalog) Discard(ctx context.Context, id string) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	err = c.withdraw(ctx, s, id, func() error {
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
func (c *Catalog) withdraw(ctx context.Context, s *State, id string, drop func() error) error {
	u := c.uploads
	r, alone := u.withdraw(id)
	if !alone {
		return fmt.Errorf("%w: draft %s is being discarded already", spool.ErrInUse, id)
	}
	defer u.keep(id)
	if r != nil {
		if err := stopped(ctx, r); err != nil {
			return err
		}
	}
	if u.isUnsure(id) {
		if err := c.unpublished(ctx, s, id); err != nil {
			return err
		}
	}
	return drop()
}

// withdraw keeps new runs of a draft from beginning, until keep, and stops the one
// that is under way, if it can be stopped. It reports false if somebody else is at it.
func (u *uploads) withdraw(id string) (r *run, alone bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.withdrawn[id] {
		return nil, false
	}
	u.withdrawn[id] = true
	r = u.runs[id]
	if r != nil && !r.committed {
		r.stopped = true
		r.cancel()
	}
	return r, true
}

func (u *uploads) keep(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.withdrawn, id)
}

func errWithdrawn(id string) error {
	return backends.NotFound("draft %s was discarded", id)
}

// stopped waits for the end of a run that is to be given up.
func stopped(ctx context.Context, r *run) error {
	timer := time.NewTimer(giveUpWait)
	defer timer.Stop()
	select {
	case <-r.done:
		if r.err == nil {
			return ErrPublished
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: the upload cannot be stopped now, its registry may be about to publish it", spool.ErrInUse)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayCommit is what a run answers to backends.Source.Commit: after it said yes the
// run is not stopped any more, only waited for.
func (u *uploads) mayCommit(r *run, id string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r.stopped {
		return errWithdrawn(id)
	}
	r.committed = true
	return nil
}

// ended notes how a run ended; mu is held.
func (u *uploads) ended(r *run, id string, err error) {
	if err != nil && r.stopped {
		err = errWithdrawn(id)
	}
	r.err = err
	switch {
	case err == nil || final(err) || errors.Is(err, fs.ErrPermission):
		delete(u.unsure, id)
	case r.committed:
		u.unsure[id] = true
	}
}

func (u *uploads) isUnsure(id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.unsure[id]
}

// unpublished looks whether the registry has what it was told to publish without our
// ever hearing of it.
// Errors: spool.ErrInUse if it does, or if that cannot be told.
func (c *Catalog) unpublished(ctx context.Context, s *State, id string) error {
	d, err := s.Spool.Draft(id)
	if err != nil {
		return err
	}
	defer shut(d)
	info := d.Info()
	r, err := c.live(info.Target.Remote)
	if err != nil {
		return err
	}
	now, err := c.statNow(ctx, r, info.Target.Ref)
	switch {
	case errors.Is(err, fs.ErrNotExist),
		err == nil && now.Version == info.Target.Replaces,
		err == nil && isSHA256(now.Digest) && now.Digest != info.Digest:
		return nil
	}
	return fmt.Errorf("%w: the registry may have published the upload, its answer was lost (sreg uploads retry %s finds out)", spool.ErrInUse, id)
}
