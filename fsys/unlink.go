// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// unlink is remove for a draft that may be on its way to the registry.
// Errors: uploads.ErrPublished; ErrBusy if that cannot be stopped any more.
func (d *Draft) unlink(ctx context.Context) error {
	d.mu.Lock()
	data := d.data
	d.mu.Unlock()
	if data == nil {
		return d.remove()
	}
	err := d.fs.uploads.Withdraw(ctx, data, func() error {
		if err := d.lock(ctx); err != nil { // whoever waits for the upload learns of its end first
			return err
		}
		defer d.unlock()
		return d.remove()
	})
	switch {
	case errors.Is(err, spool.ErrInUse):
		return fmt.Errorf("%s: %w: %v", d.currentName(), ErrBusy, err)
	case errors.Is(err, uploads.ErrPublished):
		if err := d.lock(ctx); err != nil {
			return err
		}
		d.unlock()
	}
	return err
}

// lapse reports whether the draft stands for nothing any more, though nobody removed
// it here. Somebody discarded it; or it was accepted and is not on its way since: the
// registry has it, or has refused it, and then its data is kept in the journal.
// Either way the name means what the registry has.
func (d *Draft) lapse() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.published() {
		return true
	}
	lapsed := d.lapsed()
	if lapsed && !d.gone && d.abandoned() {
		if err := d.data.Remove(); err != nil {
			d.fs.opts.Log.Warn("removing a draft that nobody opened", "file", d.name, "err", err)
		}
	}
	d.gone = d.gone || lapsed
	return lapsed
}

// lapsed needs mu. While somebody writes, it is a file all the same.
func (d *Draft) lapsed() bool {
	if d.data == nil || len(d.writers) > 0 || len(d.turn) > 0 {
		return false
	}
	return d.data.Gone() || d.abandoned() || d.accepted() && !d.fs.uploads.Pending(d.data.Info().ID)
}

// abandoned needs mu. It reports whether who was to open the draft never came.
func (d *Draft) abandoned() bool { return !d.opened && len(d.claims) > 0 && !d.claimed() }
