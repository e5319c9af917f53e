// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"time"
)

// Bytes are given out before the whole is here to be compared with its digest:
// that is what lazy means. Two kinds of readers do not have to take that risk,
// because they wait for the last byte anyway: those of small blobs, and those
// that read all of a blob from its start. They get backends.ErrCorrupt and never
// a whole image that is wrong.

// strict reports whether nothing may be given out yet.
func (d *data) strict() bool {
	return d.digest != "" && d.size <= d.item.cache.opts.StrictSize && d.phase.Load() == partial
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
		if err := d.await(ctx, 0, d.size, d.size); err != nil {
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

// awaitVerified returns the verified data, which can be that of a second
// download where the first was bad and nothing of it was given out.
func (b *Blob) awaitVerified(ctx context.Context, d *data) (*data, error) {
	for {
		err := d.awaitVerified(ctx)
		if err == nil {
			return d, nil
		}
		fresh := b.alive(ctx, d)
		if fresh == d {
			return nil, err
		}
		d = fresh
	}
}
