// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A flight is one range on its way from a registry into the file. Its fields
// are guarded by data.mu.
//
// Each chunk that is under way has exactly one flight that may write it
// (data.owner), and a chunk that is present is never written again: otherwise a
// second answer could replace bytes that were hashed already.
type flight struct {
	off, end int64         // the range; off is the start of a chunk, end that of another or the blob's
	pos      int64         // the watermark: what lies before it was written, where the flight owns it
	urgent   bool          // a reader waits for it
	demanded bool          // it was made for a reader: others yield to it
	hedged   bool          // it has been asked for twice
	slot     *sched.Slot   // of the attempt under way; nil between attempts
	whole    bool          // a stream from the blob's start, for services without ranges
	resumed  bool          // whole, but broken off: the rest is asked for before all is again
	wanted   chan struct{} // closed once somebody waits for it, see backends.Demanded
	waiters  []*waiter
	done     chan struct{} // closed when it has landed
	err      error         // valid once done
}

// A waiter wants the watermark of a flight to reach target.
type waiter struct {
	target int64
	wake   chan struct{} // has one value when there is something to look at
}

// claim makes a flight for the chunks of [off, end) that neither are here nor
// have an owner; there must be one, and it must be the first. Call with mu held.
func (d *data) claim(off, end int64, urgent bool) *flight {
	f := &flight{off: off, end: end, pos: off, urgent: urgent, demanded: urgent, wanted: make(chan struct{}), done: make(chan struct{})}
	if urgent || d.awaited > 0 {
		f.want()
	}
	for c := chunks.Of(off); c < chunks.Count(end); c++ {
		if !d.have.Has(c) && d.owner[c] == nil {
			d.owner[c] = f
		}
	}
	d.flights++
	return f
}

// want notes that somebody waits for the flight. Call with mu held.
func (f *flight) want() {
	if !f.isWanted() {
		close(f.wanted)
	}
}

// isWanted reports whether somebody waits for the flight.
func (f *flight) isWanted() bool {
	select {
	case <-f.wanted:
		return true
	default:
		return false
	}
}

// promote makes a flight urgent. Call with mu held.
func (f *flight) promote() {
	f.urgent = true
	f.want()
	if f.slot != nil {
		f.slot.Promote()
	}
}

// gap returns the first run of at most limit bytes in [off, end) of chunks that
// neither are here nor on their way. Call with mu held.
func (d *data) gap(off, end, limit int64) (from, to int64, ok bool) {
	last := chunks.Count(end)
	c := chunks.Of(off)
	for ; ; c++ {
		if c = d.have.FirstMissing(c, last); c >= last {
			return 0, 0, false
		}
		if d.owner[c] == nil {
			break
		}
	}
	from = c * chunks.Size
	for c++; c < last && c*chunks.Size-from < limit && !d.have.Has(c) && d.owner[c] == nil; c++ {
	}
	return from, min(c*chunks.Size, d.size), true
}

// advance notes that the flight has come n bytes further, and wakes who waited
// for them.
func (d *data) advance(f *flight, n int64) {
	d.mu.Lock()
	c := chunks.Of(f.pos)
	f.pos += n
	d.received, d.heard = d.received+n, time.Now()
	complete := f.pos == min((c+1)*chunks.Size, d.size) && d.owner[c] == f
	if complete {
		delete(d.owner, c)
		d.have.Add(c)
		d.recent.Note(c, d.have)
		if d.dirty == 0 {
			d.dirtySince = time.Now()
		}
		d.dirty += chunks.Size
	}
	waiting := f.waiters[:0]
	for _, w := range f.waiters {
		if w.target <= f.pos {
			w.wake <- struct{}{}
		} else {
			waiting = append(waiting, w)
		}
	}
	clear(f.waiters[len(waiting):])
	f.waiters = waiting
	d.mu.Unlock()
	if complete {
		d.kickKeeper()
	}
}

// owns reports whether the flight may write the chunk that its watermark is in,
// and whether there is a reason for it to go on.
func (d *data) owns(f *flight) (mine, left bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := chunks.Of(f.pos)
	if d.owner[c] == f {
		return true, true
	}
	for ; c < chunks.Count(f.end); c++ {
		if d.owner[c] == f {
			return false, true
		}
	}
	return false, f.whole
}

// land ends a flight. What it did not bring is missing again, and waiters look
// for themselves what to do about it.
func (d *data) land(f *flight, err error) {
	d.mu.Lock()
	d.disown(f)
	f.err = err
	d.flights--
	d.settle(err)
	for _, w := range f.waiters {
		w.wake <- struct{}{}
	}
	f.waiters = nil
	close(f.done)
	d.mu.Unlock()
	d.kickKeeper()
}

// disown gives up what the flight has not written. Call with mu held.
func (d *data) disown(f *flight) {
	for c, owner := range d.owner {
		if owner == f {
			delete(d.owner, c)
		}
	}
}

// wait returns when the flight's watermark has reached target or it has landed.
// Errors: ctx's; context.DeadlineExceeded after patience without progress; why it
// landed before, if that is the end of the reader's wait.
func (d *data) wait(ctx context.Context, r *reader, f *flight, target int64) error {
	w := &waiter{target: target, wake: make(chan struct{}, 1)}
	d.mu.Lock()
	last, landed := f.pos, f.landed()
	if landed || last >= target {
		d.mu.Unlock()
		return d.landedFor(r, f, last, target)
	}
	f.waiters = append(f.waiters, w)
	d.mu.Unlock()
	patience := d.patience()
	timer := time.NewTimer(max(patience-time.Since(r.moved), 0))
	defer timer.Stop()
	for first := last; ; {
		select {
		case <-w.wake:
			return d.landedFor(r, f, first, target)
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		d.mu.Lock()
		now := f.pos
		d.mu.Unlock()
		if now == last {
			return errNoProgress(patience)
		}
		last = now
		timer.Reset(patience)
	}
}

// landedFor returns why f, which had come to first when r began to wait for it, got
// no further than before target, if r is to be told: else the rest is asked for again.
func (d *data) landedFor(r *reader, f *flight, first, target int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.pos >= target || f.pos-first >= backends.LeastProgress {
		r.moved = time.Now()
	}
	if f.pos >= target || f.err == nil {
		return nil
	}
	for _, own := range []error{errNoRanges, errNoRoom, ErrClosed} { // need knows what to do
		if errors.Is(f.err, own) {
			return nil
		}
	}
	return d.ends(r, f.err)
}

// landed is called with mu held.
func (f *flight) landed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}
