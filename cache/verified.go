// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"time"
)

// Bytes are given out before the whole is here to be compared with its digest:
// that is what Lazy means. Two kinds of readers do not have to take that risk,
// because they wait for the last byte anyway: those of small blobs, and those
// that read all of a blob from its start. They get backends.ErrCorrupt and never
// a whole image that is wrong. With Strict that holds for everybody.

// strict reports whether nothing may be given out yet.
func (d *data) strict() bool {
	if d.phase.Load() != partial {
		return false
	}
	opts := &d.item.cache.opts
	return opts.Verify == Strict || d.digest != "" && d.size <= opts.StrictSize
}

// sawAll reports whether a reader that has just read the end of a blob of size
// bytes had read all before it.
func (w *window) sawAll(size int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next == size && w.run >= size-slack
}

// awaitVerified fetches all that is missing and returns when the digest was
// compared. Errors: those of await; backends.ErrCorrupt.
func (d *data) awaitVerified(ctx context.Context) error {
	for {
		if err := d.awaitAll(ctx); err != nil {
			return err
		}
		again := time.NewTimer(d.item.cache.opts.Patience)
		select {
		case <-d.settled:
			again.Stop()
			return d.deadErr()
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-d.item.cache.ctx.Done():
			again.Stop()
			return ErrClosed
		case <-again.C: // the disk may have lost what it had: then it is fetched again
		}
	}
}

// awaitAll fetches all that is missing: of what a reader waits for anyway at
// once, of more than that as the filler does, a few requests at a time.
// Errors: those of await.
func (d *data) awaitAll(ctx context.Context) error {
	if d.size <= maxWindow {
		return d.await(ctx, 0, d.size, d.size)
	}
	patience := d.item.cache.opts.Patience
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for last := d.progress(); ; {
		f, err := d.filling()
		if err != nil || f == nil {
			return err
		}
		select {
		case <-f.done:
			if err := d.filled(f.err); err != nil {
				return err
			}
		case <-d.settled:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			now := d.progress()
			if now == last {
				return errNoProgress(patience)
			}
			last = now
			timer.Reset(patience)
		}
	}
}

// filling returns the filler, which it starts if need be; nil if nothing is
// missing.
func (d *data) filling() (*filler, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.filler == nil && d.phase.Load() == partial && !d.complete() {
		if err := d.usable(); err != nil {
			return nil, err
		}
	}
	f := d.startFiller()
	if f == nil && d.phase.Load() == partial && !d.complete() {
		return nil, ErrClosed
	}
	return f, nil
}

// filled takes note of how a filler ended that somebody waited for.
func (d *data) filled(err error) error {
	if err == nil || errors.Is(err, errNoRoom) || d.ctx.Err() != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble.now() == nil { // else another who waited has noted it
		d.trouble.meet(err)
	}
	return err
}

// progress returns a number that changes whenever a byte comes in.
func (d *data) progress() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.have.count()
	for _, f := range d.owner {
		n += f.pos
	}
	return n
}

// awaitVerified returns the verified data, which can be that of a second
// download where the first was bad and nothing of it was given out.
func (b *Blob) awaitVerified(ctx context.Context, d *data) (*data, error) {
	for {
		err := d.awaitVerified(ctx)
		if err == nil {
			return d, nil
		}
		if errors.Is(err, errNoRoom) && d.item.cache.opts.Verify == Strict {
			return nil, outward(err) // unverified bytes through memory are no way out
		}
		fresh := b.alive(ctx, d)
		if fresh == d {
			return nil, err
		}
		d = fresh
	}
}
