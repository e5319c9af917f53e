// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
)

// A read that begins this near to the start is somebody looking at what kind of
// file it is, see Options.Probe.
const probe = 128 << 10

// Await returns when the bytes [off, end) can be read from the sink, and fetches what
// is missing of them, and of the window ahead of them.
//
// Errors: ctx's; those of Source.Open, of those that may pass each only when nothing
// came in for Source.Timeout; context.DeadlineExceeded when nothing came in for
// Options.Patience; ErrNoRoom if they cannot be put into the sink; ErrClosed; that of
// End; those of the local disk.
func (d *Download) Await(ctx context.Context, off, end int64, w *Window) error {
	ahead := end
	if !d.opts.NoBackground {
		ahead = w.note(off, end, d.reach())
	}
	if d.opts.Have.All(chunks.Of(off), chunks.Count(min(max(end, ahead), d.opts.Size))) {
		return nil
	}
	if err := d.prepare(ctx); err != nil {
		return outward(err)
	}
	d.demanded(off, w)
	return outward(d.reader().await(ctx, off, end, ahead))
}

// prepare prepares the first source, if it is a Divided one.
func (d *work) prepare(ctx context.Context) error {
	if u, ok := d.sources.divided(); ok {
		return u.Prepare(ctx)
	}
	return nil
}

// AwaitByte is Await for one byte, of a reader who wants to know only whether the
// registry still has it.
func (d *Download) AwaitByte(ctx context.Context, off int64) error {
	if err := d.prepare(ctx); err != nil {
		return outward(err)
	}
	return outward(d.reader().await(ctx, off, off+1, off+1))
}

func (r *reader) await(ctx context.Context, off, end, ahead int64) error {
	for {
		f, target, err := r.need(off, end, min(ahead, r.d.opts.Size))
		if err != nil || f == nil {
			return err
		}
		if err := r.wait(ctx, f, target); err != nil {
			return err
		}
	}
}

// need starts what is missing of [off, ahead). It returns the fetch that brings the
// first byte of [off, end) that cannot be read yet, and how far it must get; nil if all
// can be read.
func (r *reader) need(off, end, ahead int64) (*fetch, int64, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frontier = end
	first := d.ranges.unread(off, end)
	if d.ended && d.end == nil {
		return nil, 0, nil
	}
	switch err := d.usable(r.began); {
	case err == nil:
		d.launch(off, end, true)
		if u, ok := d.sources.divided(); ok {
			for _, r := range u.Cold() {
				d.launch(r[0], r[1], true)
			}
		}
		if d.background == nil { // else that has its turn, as those of other blobs have
			d.launch(end, ahead, false)
		}
	case !d.ended && (first < 0 || d.ranges.owner[chunks.Of(first)] != nil):
		// What is here, or on its way, comes whatever failed meanwhile.
	default:
		return nil, 0, err
	}
	if first < 0 {
		return nil, 0, nil
	}
	c := chunks.Of(first)
	if f := d.ranges.owner[c]; f != nil {
		if f = d.overtake(f, c); f != nil {
			for c++; d.ranges.owner[c] == f; c++ {
			}
			return f, min(end, c*chunks.Size), nil
		}
	} else if f = d.ranges.whole(); f != nil {
		return f, d.opts.Size + 1, nil // it has passed the chunk: after it, another one
	}
	return nil, 0, ErrClosed // nothing could be started
}

// A blob may be asked for twice as long as no more than 1/againShare of it is.
const againShare = 64

// mayRepeat reports whether n bytes more may be asked for twice. Call with mu held.
func (d *work) mayRepeat(n int64) bool { return (d.again+n)*againShare <= d.opts.Size }

// launch starts fetches for what is missing of [from, to). Where a reader waits for that,
// they are urgent, and those under way there are promoted. Call with mu held.
func (d *work) launch(from, to int64, urgent bool) {
	if u, ok := d.sources.divided(); ok {
		d.launchUnits(u, from, to, urgent)
	} else if d.streamed() {
		if f := d.claimWhole(true); f != nil {
			d.start(f, nil)
		}
	} else {
		for least := d.leastPiece(); ; {
			a, b, ok := d.ranges.gap(from, to, maxPiece)
			if ok && b-a < least {
				a, b, ok = d.ranges.gap(a, min(a+least, d.opts.Size), least)
			}
			if !ok || !d.start(d.claim(a, b, urgent), nil) {
				break
			}
		}
	}
	for c := chunks.Of(from); urgent && c < chunks.Count(to); c++ {
		if f := d.ranges.owner[c]; f != nil {
			f.promote()
		}
	}
}

// launchUnits is launch for a Divided source. Call with mu held.
func (d *work) launchUnits(u Divided, from, to int64, urgent bool) {
	for {
		a, b, ok := d.ranges.gap(from, to, maxPiece)
		if !ok {
			return
		}
		f := d.claimUnit(u, a, b, urgent)
		if !d.start(f, nil) {
			return
		}
		from = f.end
	}
}

// claimUnit is claim for [a, b) and what comes with it. Call with mu held.
func (d *work) claimUnit(u Divided, a, b int64, urgent bool) *fetch {
	first, last := u.Unit(a, b)
	first, _, _ = d.ranges.gap(first, last, chunks.Size)
	return d.claim(first, last, urgent)
}

// leastPiece is what one request for a reader asks for at least: on a slow line, what
// lies behind the bytes that he wants would be in the way of the next that he wants.
func (d *work) leastPiece() int64 {
	if speed := d.sources.known(); speed > 0 {
		return min(max(int64(speed*pieceTime.Seconds()), chunks.Size), minPiece)
	}
	return minPiece
}

// reach is how far ahead of a reader to fetch at most.
func (d *work) reach() int64 {
	if speed := d.sources.known(); speed > 0 {
		return min(max(int64(speed*reachTime.Seconds()), minPiece), maxWindow)
	}
	return maxWindow
}

// claimWhole makes the one fetch of a service without ranges, nil if it is under way
// already or nothing is missing. Call with mu held.
func (d *work) claimWhole(urgent bool) *fetch {
	if f := d.ranges.whole(); f != nil {
		// What others gave up and it has not passed yet, it can bring too.
		d.ranges.claim(f, chunks.Count(f.pos)*chunks.Size)
		return nil
	}
	if _, _, ok := d.ranges.gap(0, d.opts.Size, chunks.Size); !ok {
		return nil
	}
	f := d.claim(0, d.opts.Size, urgent)
	f.whole, f.demanded = true, false
	d.ranges.stream = f
	return f
}

// overtake returns the fetch to wait for to get chunk c: f, or another one where that
// brings it sooner, so that f ends before it. Call with mu held.
func (d *work) overtake(f *fetch, c int64) *fetch {
	at := c * chunks.Size
	if _, divided := d.sources.divided(); divided || f.whole || !f.isFar(at) {
		return f
	}
	end, ok := d.cut(f, c)
	if !ok {
		return f
	}
	other := d.claim(at, min(end, at+d.leastPiece()), true)
	if !d.start(other, nil) {
		return nil
	}
	return other
}

// slowLine is how many bytes a second, of all bodies, mean that little of one is on its way.
const slowLine = 4e6

// cut ends f before chunk c, if what may be on its way then may be sent twice. It returns
// where what f was to bring in one run from there on ended. Call with mu held.
func (d *work) cut(f *fetch, c int64) (end int64, ok bool) {
	lost := f.end - c*chunks.Size
	if rate := d.sources.best().Scheduler().Rate(); rate > 0 && rate < slowLine {
		lost = min(lost, chunks.Size)
	}
	if !d.mayRepeat(lost) {
		return 0, false
	}
	d.again += lost
	return d.ranges.cut(f, c), true
}

// Prefetch starts what is missing of [off, end).
func (d *Download) Prefetch(off, end int64) {
	if off >= end || d.prepare(d.ctx) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended && d.usable(time.Now()) == nil {
		d.launch(off, end, true)
	}
}

// demanded is called before each read of what is not all here. Unless the reader only
// looks, the rest is fetched too: soon, or at once where the reader seems to want it.
func (d *Download) demanded(off int64, w *Window) {
	if off < probe && d.opts.Probe != nil {
		d.opts.Probe()
	}
	if w.Quiet || d.opts.NoBackground {
		return
	}
	now := w.wantsAll()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle || d.ctx.Err() != nil || d.usable(time.Now()) != nil {
		return
	}
	if now {
		d.wantAll()
	}
	if now && d.background == nil {
		d.frontier = off
		if b := d.startBackground(); b != nil {
			b.sure = false
		}
	}
	if !d.armed && (d.background == nil || !d.background.sure) {
		d.armed = true
		time.AfterFunc(d.opts.Delay, d.afterDelay)
	}
}

// afterDelay runs when Options.Delay after the first demanded read is over. Where the
// blob is closed again by then, somebody only looked into it (file, head, a file
// manager): the rest is not fetched.
func (d *work) afterDelay() {
	open := d.opts.InUse()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	if !open || d.ended {
		return
	}
	if b := d.startBackground(); b != nil {
		b.sure = true
	}
}

// wantAll is called when all of the blob is wanted now: the adaptive limit of its
// service does not climb first. Call with mu held.
func (d *work) wantAll() { d.sources.best().Scheduler().WantAll() }

// All fetches all that is missing: of what a reader waits for anyway at once, of more
// than that as the background does, a few requests at a time. It returns when nothing
// is missing. Errors: those of Await.
func (d *Download) All(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return outward(err)
	}
	if d.opts.Size <= maxWindow {
		return outward(d.reader().await(ctx, 0, d.opts.Size, d.opts.Size))
	}
	defer d.want()()
	r, patience := d.reader(), d.Patience()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for last, _ := d.Received(); ; {
		b, err := r.filling()
		if err != nil || b == nil {
			return outward(err)
		}
		select {
		case <-b.done:
			if err := r.filled(b.err); err != nil {
				return outward(err)
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			now, _ := d.Received()
			if now == last {
				return errNoProgress(patience)
			}
			r.note(now)
			last = now
			timer.Reset(patience)
		}
	}
}

// filling returns the background, which it starts if need be; nil if nothing is
// missing.
func (r *reader) filling() (*background, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	incomplete := !d.ended && !d.ranges.complete()
	if d.background == nil && incomplete {
		if err := d.usable(r.began); err != nil {
			return nil, err
		}
	}
	d.wantAll()
	b := d.startBackground()
	if b == nil && incomplete {
		return nil, ErrClosed
	}
	return b, nil
}

// Fill fetches all that is missing in the background, until done is closed, which
// follows on End. tick is called ten times a second. Errors: those of Await but for
// patience.
func (d *Download) Fill(ctx context.Context, done <-chan struct{}, tick func()) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	defer d.want()()
	r := d.reader()
	for {
		b := r.fill()
		var filled <-chan struct{}
		if b != nil {
			filled = b.done
		}
		select {
		case <-done:
			return nil
		case <-d.ctx.Done():
			if !d.hasEnded() {
				return ErrClosed
			}
			<-done
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-filled:
			if err := r.filled(b.err); err != nil {
				return outward(err)
			}
		case <-ticker.C:
			tick()
		}
	}
}

// fill notes what came in, and returns the background, which it starts if need
// be; nil if nothing is missing.
func (r *reader) fill() *background {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	r.note(d.received)
	if d.ended {
		return nil
	}
	d.wantAll()
	return d.startBackground()
}
