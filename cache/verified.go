// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// Bytes are given out before the whole is here to be compared with its digest:
// that is what Lazy means. Nobody ever gets all bytes of a blob that way, though:
// small blobs are given out when they were verified, and of others the last chunk
// that nobody had yet is. So no copy of a wrong image succeeds, whoever read
// which part of it, and whatever the kernel still had. With Strict nothing is
// given out before.

// A served is which chunks of a part readers got before it was verified, over all
// openings of it, for as long as the bytes here stay the same ones.
type served struct {
	size     int64 // bytes
	chunks   chunks.Set
	left     atomic.Int64 // how many nobody got yet
	verified atomic.Bool  // what they got turned out to be right
}

// An Epoch tells the bytes of one download of a blob from those of another one. The
// zero value is that of verified bytes.
type Epoch struct{ served *served }

// noEpoch is that of what is not here.
var noEpoch = Epoch{&served{}}

// Agrees reports whether bytes of both epochs may be combined: they are of one
// download, or all of them were found to be right. Else one of the downloads was
// thrown away, perhaps because its digest did not match.
func (e Epoch) Agrees(o Epoch) bool { return e == o || e.good() && o.good() }

func (e Epoch) good() bool { return e.served == nil || e.served.verified.Load() }

// servedOf returns what was served of the bytes that are here.
func (it *item) servedOf(size int64) *served {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.served == nil || it.served.size != size {
		it.served = &served{size: size, chunks: chunks.NewSet(chunks.Count(size))}
		it.served.left.Store(chunks.Count(size))
	}
	return it.served
}

// some reports whether any reader got anything.
func (s *served) some() bool { return s == nil || s.left.Load() < chunks.Count(s.size) }

// gives notes that a reader is to get [off, end), and reports whether the digest must
// match first.
func (d *data) gives(off, end int64) (verify bool) {
	// Not "while it is partial": it may have turned out wrong since they came in.
	return d.check.serve(off, end) && d.phase.Load() != whole
}

// strict reports whether nothing may be given out yet.
func (d *data) strict() bool {
	if d.phase.Load() != partial {
		return false
	}
	opts := &d.item.cache.opts
	return opts.Verify == Strict || d.check.digest != "" && d.size <= opts.StrictSize
}

// awaitVerified fetches all that is missing and returns when the blob is whole.
// Errors: those of await; backends.ErrCorrupt.
func (d *data) awaitVerified(ctx context.Context) error {
	return d.awaitEnd(ctx, func() <-chan struct{} { return d.settled })
}

// awaitMatched is awaitVerified, but does not wait until the blob is durable and
// in its place.
func (d *data) awaitMatched(ctx context.Context) error {
	return d.awaitEnd(ctx, d.check.match)
}

// awaitEnd fetches all that is missing and returns when the channel that end
// gives then is closed, or the blob is whole or dead.
func (d *data) awaitEnd(ctx context.Context, end func() <-chan struct{}) error {
	for {
		if err := d.download.All(ctx); err != nil {
			return err
		}
		again := time.NewTimer(d.download.Patience())
		select {
		case <-end():
			again.Stop()
			return d.deadErr()
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
		if errors.Is(err, fetch.ErrNoRoom) && d.item.cache.opts.Verify == Strict {
			return nil, outward(err) // unverified bytes through memory are no way out
		}
		fresh := b.alive(ctx, d, true)
		if fresh == d {
			return nil, err
		}
		d = fresh
	}
}
