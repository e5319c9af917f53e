// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// errWriteFailed is why a file is not published that lacks bytes of a failed write.
var errWriteFailed = errors.New("a write to the file failed before: it is not whole")

// publish publishes the draft under its present name.
func (d *Draft) publish(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	return d.publishLocked(ctx)
}

// publishLocked needs d.lock. mu is not held while bytes are sent.
func (d *Draft) publishLocked(ctx context.Context) error {
	d.mu.Lock()
	data, broken, before := d.data, d.broken, d.err
	skip := data == nil || d.ended() || !d.dirty
	d.mu.Unlock()
	if skip || before != nil {
		return before // another caller had the lock before, and has published it
	}
	var err error
	if broken {
		err = errWriteFailed
	} else {
		err = d.fs.uploads.Publish(ctx, data)
	}
	d.publishDone(data, err)
	return err
}

// lockData takes mu when the data may be changed. It waits while the draft is being
// published; a published draft that is still open for writing goes on in a copy. After an
// error mu is not held.
func (d *Draft) lockData(ctx context.Context) error {
	d.mu.Lock()
	for d.data != nil && (len(d.exclusive) > 0 || d.committed && len(d.writers) > 0) {
		d.mu.Unlock()
		if err := d.forkPublished(ctx); err != nil {
			return err
		}
		d.mu.Lock()
	}
	return nil
}

// forkPublished prepares a published file for more writes. Its bytes are published or
// queued and cannot change any more, so the draft goes on with a copy. The copy may
// replace only what this file has published, which no policy has to allow.
func (d *Draft) forkPublished(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	d.mu.Lock()
	old, done := d.data, d.committed
	d.mu.Unlock()
	if !done || old == nil {
		return nil
	}
	next, err := old.Fork(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.data, d.committed = next, false
	if d.handles > 0 {
		err = next.KeepOpen()
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.fs.install(d); err != nil {
		d.fs.opts.Log.Warn("dropping a draft", "file", d.fileName(), "err", err)
	}
	if err := old.Close(); err != nil {
		d.fs.opts.Log.Warn("closing a draft", "file", d.fileName(), "err", err)
	}
	return nil
}

// publishDone notes the result of publishing.
func (d *Draft) publishDone(data *spool.Draft, err error) {
	d.mu.Lock()
	d.err = err
	if err == nil {
		d.dirty, d.committed, d.attr.Size = false, true, data.Size()
	}
	d.mu.Unlock()
	switch {
	case err != nil:
	case data.Info().Queued():
		if err := d.fs.install(d); err != nil { // as the last one
			d.fs.opts.Log.Warn("dropping a draft", "file", d.fileName(), "err", err)
		}
		d.changed()
	default:
		d.fs.removeDraft(d)
	}
}

// damage returns why a file is not whole: a write failed, or it is a part of an image. It
// is nil for what is no image at all: tools keep other things under temporary names, too.
func damage(data *spool.Draft, broken error) error {
	if broken != nil {
		return broken
	}
	if _, err := uploads.CompleteImage(data, data.Size()); errors.Is(err, backends.ErrCorrupt) {
		return err
	}
	return nil
}
