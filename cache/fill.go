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

const (
	minFill = 1 << 20 // of one background request
	maxFill = 16 << 20
	// nearFill is the most of one request close to a reader who goes on reading:
	// what comes over one connection there keeps back what came over the others.
	nearFill = 4 << 20
	// farFill is the most of one anywhere, unless asking takes half as long as
	// sending it: what comes in side by side is hashed one after the other, the rest
	// of it when all is here.
	farFill = 8 << 20
	// fillTime is how long one background request should take: a reader may have
	// to wait for it.
	fillTime = 500 * time.Millisecond
	// maxFillRow is how often in a row the filler fails before it gives up; the
	// next read starts another one.
	maxFillRow = 6
)

// A filler fetches all of a blob that is missing, from the last reader's
// position to the end and then from the start. It has one ticket in the queue of
// the lane and claims a range when that is granted, not before: several blobs
// take turns, and what is claimed is what is wanted then.
type filler struct {
	data *data
	done chan struct{} // closed at its end
	err  error         // valid once done; nil if nothing was missing any more, or the blob had ended

	slot    *sched.Slot // that it has asked for; nil if there is nothing to fetch with it
	running int         // flights
	landed  chan *flight
	failed  trouble

	// sure: the rest is fetched whether or not somebody still has the blob open.
	// Before, they may only have looked. Guarded by data.mu.
	sure bool
}

// startFiller returns the filler of d, which it starts if none runs. It returns
// nil if there is nothing to fetch or the cache is closing. Call with mu held.
func (d *data) startFiller() *filler {
	if d.filler != nil {
		return d.filler
	}
	if d.idle || d.phase.Load() != partial || d.complete() {
		return nil
	}
	f := &filler{data: d, done: make(chan struct{}), landed: make(chan *flight), sure: true}
	if !d.item.cache.spawn(f.run) {
		return nil
	}
	d.filler = f
	return f
}

// hasten is called when all of d is wanted now: there is no climbing to the
// pace that its service can keep. Call with mu held.
func (d *data) hasten() { d.sources[0].sched.WantAll() }

func (f *filler) run() {
	err := backends.Guard(f.data.item.cache.opts.Log, f.fill)
	for range f.running {
		<-f.landed
	}
	d := f.data
	if d.phase.Load() != partial {
		err = nil // how the blob ended is what counts, see settled
	}
	d.mu.Lock()
	d.filler, f.err = nil, err
	d.mu.Unlock()
	close(f.done)
	d.kickKeeper()
}

// fill returns when nothing is missing, or with what keeps it from going on.
func (f *filler) fill() error {
	defer f.stepBack()
	for {
		f.queueUp()
		if f.slot == nil && f.running == 0 {
			other := f.data.anyFlight()
			if other == nil {
				return nil
			}
			<-other.done
			continue
		}
		if err := f.next(); err != nil {
			return err
		}
	}
}

// queueUp sees to it that the filler has a ticket as long as there is something
// to fetch with it.
func (f *filler) queueUp() {
	d := f.data
	most := d.item.cache.opts.Streams
	wanted := (most <= 0 || f.running < most) && f.wanted()
	s := d.source().sched
	if !wanted || f.slot != nil && !f.slot.Of(s) {
		f.stepBack()
	}
	if wanted && f.slot == nil {
		f.slot = s.Ask(sched.Background)
	}
}

// stepBack gives the ticket back.
func (f *filler) stepBack() {
	if f.slot != nil {
		f.slot.Release()
		f.slot = nil
	}
}

// next waits for the ticket, to start a flight with it, or for a flight to land.
func (f *filler) next() error {
	var granted <-chan struct{}
	if f.slot != nil {
		granted = f.slot.Ready()
	}
	select {
	case <-granted:
		return f.start()
	case landed := <-f.landed:
		f.running--
		return f.review(landed.err)
	case <-f.data.ctx.Done():
		return ErrClosed
	}
}

// review looks at how a flight ended, and waits where that is better.
func (f *filler) review(err error) error {
	switch {
	case err == nil:
		f.failed = trouble{}
		return nil
	case !f.data.worthWhile(err, f.failed.row):
		return err
	}
	f.failed.meet(err)
	f.stepBack()
	if sleep(f.data.ctx, jitter(time.Until(f.failed.until))) != nil {
		return ErrClosed
	}
	return nil
}

// wanted reports whether there is something to claim.
func (f *filler) wanted() bool {
	d := f.data
	open := d.item.open(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !open && !f.sure {
		return false
	}
	_, _, missing := d.gap(0, d.size, chunks.Size)
	return missing && (!d.streamed() || d.wholeFlight() == nil)
}

// start starts a flight for the next missing range, if there still is one, with
// the ticket.
func (f *filler) start() error {
	d := f.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase.Load() != partial || d.ctx.Err() != nil {
		return ErrClosed
	}
	if time.Now().Before(d.full) {
		return errNoRoom
	}
	next := d.claimNext()
	if next == nil {
		return nil
	}
	next.slot = f.slot
	if !d.startThen(next, func() { f.landed <- next }) {
		return ErrClosed
	}
	f.slot = nil
	f.running++
	return nil
}

// claimNext claims what the filler should fetch next, nil if there is nothing.
// Call with mu held.
func (d *data) claimNext() *flight {
	if d.streamed() {
		return d.claimWhole(false)
	}
	from, _, ok := d.gap(d.frontier, d.size, chunks.Size)
	if !ok {
		from, _, ok = d.gap(0, d.size, chunks.Size)
	}
	if !ok {
		return nil
	}
	_, to, _ := d.gap(from, d.size, d.fillSize(from))
	return d.claim(from, to, false)
}

// fillSize is how much one background request asks for from off on: what comes
// in half a second, so that a reader who has to wait for it waits no longer than
// that; less where a reader will soon be; and towards the end no more than each
// stream's share of what is left, so that all end together. But never so little
// that asking takes longer than sending. Call with mu held.
func (d *data) fillSize(off int64) int64 {
	if d.rate == 0 {
		return nearFill
	}
	transit := d.inTransit()
	n := min(int64(d.rate*fillTime.Seconds()), max(farFill, 2*transit), maxFill)
	floor := min(transit, n)
	if off >= d.frontier {
		n = min(n, max((off-d.frontier)/sched.LimitMax, nearFill))
	}
	// What is under way counts too: else each claim would leave a rest for one
	// more round trip.
	left := (chunks.Count(d.size) - d.have.Len()) * chunks.Size
	n = max(min(n, left/sched.LimitMax), floor)
	return chunks.Count(max(n, minFill)) * chunks.Size
}

// anyFlight returns a flight under way, nil if there is none.
func (d *data) anyFlight() *flight {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.owner {
		return f
	}
	return d.wholeFlight()
}

// worthWhile reports whether the filler should try again after err, when it had
// failed row times before without success between.
func (d *data) worthWhile(err error, row int) bool {
	var opened *openError
	switch {
	case d.ctx.Err() != nil || d.phase.Load() != partial:
		return false
	case errors.Is(err, errNoRanges):
		return true
	case errors.As(err, &opened) && d.isAwaited():
		return false // the client has tried for as long as they wait
	case errors.As(err, &opened), !d.item.open(d):
		return row < 1 && mayPass(err) // the client has tried for long, or nobody waits any more
	}
	return row < maxFillRow && mayPass(err)
}

// wholly is Blob.Wait.
func (d *data) wholly(ctx context.Context, progress func(have int64)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	defer d.wantAll()()
	r := newReader()
	for {
		r.note(d.progress())
		d.mu.Lock()
		var f *filler
		if d.phase.Load() == partial {
			d.hasten()
			f = d.startFiller()
		}
		d.mu.Unlock()
		var filled <-chan struct{}
		if f != nil {
			filled = f.done
		}
		select {
		case <-d.settled:
			progress(d.present())
			return d.deadErr()
		case <-d.item.cache.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-filled:
			if err := d.filled(r, f.err); err != nil {
				return outward(err)
			}
		case <-tick.C:
			progress(d.present())
		}
	}
}
