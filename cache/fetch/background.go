// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	minFill = 1 << 20 // of one background request; half of it on a slow line
	maxFill = 16 << 20
	// nearFill is the most of one request close to a reader who goes on reading:
	// what comes over one connection there keeps back what came over the others.
	nearFill = 4 << 20
	// firstFill is that of one before anything came in.
	firstFill = 2 << 20
	// farFill is the most of one anywhere, unless asking takes half as long as
	// sending it: what comes in side by side is hashed one after the other, the rest
	// of it when all is here.
	farFill = 8 << 20
	// fillTime is how long one background request should take, or as long as two of them
	// travel: a reader may have to wait for it.
	fillTime = 250 * time.Millisecond
	// maxFillRow is how often in a row the background fails before it gives up; the
	// next read starts another one.
	maxFillRow = 6
)

// A background fetches all of a blob that is missing, from the last reader's position
// to the end and then from the start. It has one slot in the queue of the scheduler and
// claims a range when that is given out, not before: several blobs take turns, and what
// is claimed is what is wanted then.
type background struct {
	d    *work
	done chan struct{} // closed at its end
	err  error         // valid once done; nil if nothing was missing any more, or the blob had ended

	slot    *sched.Slot // that it has asked for; nil if there is nothing to fetch with it
	running int         // fetches
	// measured: one of them has ended, so the speed is that of one beside others.
	measured bool
	ended    chan *fetch
	row      int // failures in a row

	// sure: the rest is fetched whether or not somebody still has the blob open.
	// Before, they may only have looked. Guarded by work.mu.
	sure bool
}

// StartBackground lets all that is missing come in.
func (d *Download) StartBackground() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.startBackground()
}

// startBackground returns the background of d, which it starts if none runs. It returns
// nil if there is nothing to fetch or nothing may be started. Call with mu held.
func (d *work) startBackground() *background {
	if d.background != nil {
		return d.background
	}
	if d.idle || d.ended || d.ranges.complete() {
		return nil
	}
	b := &background{d: d, done: make(chan struct{}), ended: make(chan *fetch), sure: true}
	if !d.opts.Go(b.run) {
		return nil
	}
	d.background = b
	return b
}

func (b *background) run() {
	d := b.d
	err := backends.Guard(d.opts.Log, b.fill)
	for range b.running {
		<-b.ended
	}
	d.mu.Lock()
	if d.ended {
		err = nil // how the blob ended is what counts
	}
	d.background, b.err = nil, err
	d.mu.Unlock()
	close(b.done)
	d.opts.Sink.Changed()
}

// fill returns when nothing is missing, or with what keeps it from going on.
func (b *background) fill() error {
	defer b.release()
	if err := b.d.prepare(b.d.ctx); err != nil {
		return err
	}
	for {
		b.ask()
		if b.slot == nil && b.running == 0 {
			other := b.d.anyFetch()
			if other == nil {
				return nil
			}
			<-other.done
			continue
		}
		if err := b.next(); err != nil {
			return err
		}
	}
}

func (d *work) anyFetch() *fetch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ranges.any()
}

// ask asks for a slot as long as there is something to fetch with it.
func (b *background) ask() {
	most := b.d.opts.Streams
	wanted := (most <= 0 || b.running < most) && b.wanted()
	s := b.d.sources.best().Scheduler()
	if !wanted || b.slot != nil && !b.slot.Of(s) {
		b.release()
	}
	if wanted && b.slot == nil {
		b.slot = s.Ask(sched.Background)
	}
}

// release gives the slot back.
func (b *background) release() {
	if b.slot != nil {
		b.slot.Release()
		b.slot = nil
	}
}

// next waits for the slot, to start a fetch with it, or for a fetch to end.
func (b *background) next() error {
	var ready <-chan struct{}
	if b.slot != nil {
		ready = b.slot.Ready()
	}
	select {
	case <-ready:
		return b.start()
	case f := <-b.ended:
		b.running--
		b.measured = true
		return b.review(f.err)
	case <-b.d.ctx.Done():
		return ErrClosed
	}
}

// review looks at how a fetch ended. The scheduler decides when the next one begins.
func (b *background) review(err error) error {
	switch {
	case err == nil:
		b.row = 0
		return nil
	case !b.worthWhile(err):
		return err
	}
	// That one image comes only whole is no reason to rest for the others: it is asked for
	// so next. Whoever refuses that as well is left alone for a while.
	if b.row++; !errors.Is(err, errNoRanges) || b.row > 1 {
		b.d.sources.best().Scheduler().Failed(b.row)
	}
	return nil
}

// worthWhile reports whether to try again after err.
func (b *background) worthWhile(err error) bool {
	d, final := b.d, final(err)
	switch {
	case d.ctx.Err() != nil || d.hasEnded():
		return false
	case errors.Is(err, errNoRanges):
		return true
	case final && d.isAwaited():
		return false // the source has tried for as long as they wait
	case final, !d.opts.InUse():
		return b.row < 1 && mayPass(err) // the source has tried for long, or nobody waits any more
	}
	return b.row < maxFillRow && mayPass(err)
}

func (d *work) hasEnded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}

// wanted reports whether there is something to claim.
func (b *background) wanted() bool {
	d := b.d
	open := d.opts.InUse()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !open && !b.sure {
		return false
	}
	_, _, missing := d.ranges.gap(0, d.opts.Size, chunks.Size)
	return missing && (!d.streamed() || d.ranges.whole() == nil)
}

// start starts a fetch for the next missing range, if there still is one, with the
// slot.
func (b *background) start() error {
	d := b.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.ctx.Err() != nil {
		return ErrClosed
	}
	if time.Now().Before(d.full) {
		return ErrNoRoom
	}
	f := b.claim()
	if f == nil {
		return nil
	}
	f.slot = b.slot
	if !d.start(f, func() { b.ended <- f }) {
		return ErrClosed
	}
	b.slot = nil
	b.running++
	return nil
}

// claim claims what should be fetched next, nil if there is nothing. Call with mu held.
func (b *background) claim() *fetch {
	d := b.d
	if d.streamed() {
		return d.claimWhole(false)
	}
	from, _, ok := d.ranges.gap(d.frontier, d.opts.Size, chunks.Size)
	if !ok {
		from, _, ok = d.ranges.gap(0, d.opts.Size, chunks.Size)
	}
	if !ok {
		return nil
	}
	_, to, _ := d.ranges.gap(from, d.opts.Size, b.fillSize(from))
	if u, ok := d.sources.divided(); ok {
		return d.claimUnit(u, from, to, false)
	}
	return d.claim(from, to, false)
}

// fillSize is how much one background request asks for from off on: what comes in within
// fillTime or two round trips, so that a reader who has to wait for it waits no longer than that; less
// where a reader will soon be; and towards the end no more than each stream's share of
// what is left, so that all end together. But never so little that asking takes longer
// than sending. Call with mu held.
func (b *background) fillSize(off int64) int64 {
	d := b.d
	speed := d.sources.known()
	if speed == 0 {
		return firstFill
	}
	transit := d.sources.inTransit()
	timed := max(int64(speed*fillTime.Seconds()), 2*transit)
	if !b.measured { // they may share what one of them would bring
		timed = min(timed, max(min(timed/sched.LimitMax, firstFill), transit))
	}
	n := min(timed, max(farFill, 2*transit), maxFill)
	floor := max(min(transit, n), min(max(timed, minFill/2), minFill))
	if off >= d.frontier {
		n = min(n, max((off-d.frontier)/sched.LimitMax, nearFill))
	}
	// What is under way counts too: else each claim would leave a rest for one
	// more round trip.
	left := (chunks.Count(d.opts.Size) - d.opts.Have.Len()) * chunks.Size
	return chunks.Count(max(min(n, left/sched.LimitMax), floor)) * chunks.Size
}
