// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	bufferSize = 256 << 10
	// FullPause is how long the disk counts as full before it is tried again.
	FullPause = 10 * time.Second
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A fetch is one range on its way from a registry into the sink. Its fields are guarded
// by work.mu; pos changes in the fetch's own goroutine only, end only to where pos has
// not come yet, or to the start of the chunk that it is in.
type fetch struct {
	d        *work
	off, end int64         // the range; off is the start of a chunk, end that of another or the blob's
	pos      int64         // the watermark: what lies before it was written, where the fetch owns it
	begun    time.Time     // when the first bytes had come in
	first    int64         // pos then
	urgent   bool          // a reader waits for it
	demanded bool          // it was made for a reader: others yield to it
	slot     *sched.Slot   // that it comes with; nil if it asks for its own
	transfer Transfer      // under way; nil before
	whole    bool          // a stream from the blob's start, for services without ranges
	wanted   chan struct{} // closed once somebody waits for it, see backends.Demanded
	waiters  []*waiter
	done     chan struct{} // closed when it has ended
	err      error         // valid once done
}

// A waiter wants the watermark of a fetch to reach target.
type waiter struct {
	target int64
	wake   chan struct{} // has one value when there is something to look at
}

// claim makes a fetch for the chunks of [off, end) that neither are here nor under
// way; there must be one, and it must be the first. Call with mu held.
func (d *work) claim(off, end int64, urgent bool) *fetch {
	f := &fetch{d: d, off: off, end: end, pos: off, urgent: urgent, demanded: urgent, wanted: make(chan struct{}), done: make(chan struct{})}
	if urgent || d.awaited > 0 {
		f.want()
	}
	d.ranges.claim(f, off)
	d.ranges.running++
	return f
}

// want notes that somebody waits for the fetch. Call with mu held.
func (f *fetch) want() {
	if !closed(f.wanted) {
		close(f.wanted)
	}
}

// promote makes a fetch urgent. Call with mu held.
func (f *fetch) promote() {
	f.urgent = true
	f.want()
	if f.slot != nil {
		f.slot.Promote()
	}
	if f.transfer != nil {
		f.transfer.Promote()
	}
}

// demote lets a fetch yield to others that readers wait for, as its own have what they
// wanted. What it was to bring beyond that may have been too much, as long as the speed
// was not known. Call with mu held.
func (f *fetch) demote() {
	d := f.d
	f.urgent = false
	f.transfer.Demote()
	if _, divided := d.sources.divided(); divided {
		return
	}
	if c := chunks.Count(max(f.off+d.leastPiece(), f.pos)); f.demanded && c < chunks.Count(f.end) {
		d.cut(f, c)
	}
}

// ended is called with mu held.
func (f *fetch) ended() bool { return closed(f.done) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// run brings the fetch to its end, from one source after the other.
// Errors: ErrNoRoom, errNoRanges; those of backends.Transfer; of the sink.
func (f *fetch) run() error {
	d := f.d
	if err := d.opts.Sink.Reserve(min(f.left(), maxFill)); err != nil {
		f.takeSlot(nil)
		return err
	}
	for {
		src := d.sources.best()
		err := f.transferFrom(src)
		final := final(err)
		switch {
		case d.ctx.Err() != nil:
			return ErrClosed
		case f.left() <= 0, errors.Is(err, errNothingLeft):
			return nil
		case errors.Is(err, errors.ErrUnsupported) && !final && !isDivided(src):
			d.noRanges(src)
			return errNoRanges
		case (final || !mayPass(err)) && d.sources.demote(src):
			continue
		}
		return err
	}
}

// noRanges notes that src sends only whole images.
func (d *work) noRanges(src Source) {
	src.Scheduler().Ranges.Ignored()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wholeOnly = true
}

// transferFrom brings what is left of the fetch.
func (f *fetch) transferFrom(src Source) error {
	d := f.d
	t := src.Open(d.ctx, backends.TransferOptions{
		Off: f.pos, N: f.left(), Whole: f.whole, Demanded: f.demanded, Slot: f.takeSlot(src.Scheduler()),
		Wanted: f.wanted, Resume: d.opts.InUse, Repeat: d.repeat, Silence: d.Patience() / 3, Go: d.opts.Go,
	})
	defer t.Close()
	d.mu.Lock()
	f.transfer = t
	if f.urgent {
		t.Promote()
	}
	d.mu.Unlock()
	return f.receive(t)
}

// takeSlot returns the slot that the fetch came with, once, if it is one of s.
func (f *fetch) takeSlot(s *sched.Scheduler) *sched.Slot {
	f.d.mu.Lock()
	slot := f.slot
	f.slot = nil
	f.d.mu.Unlock()
	if slot != nil && !slot.Of(s) {
		slot.Release()
		slot = nil
	}
	return slot
}

// repeat reports whether n bytes may be asked for twice, and counts them. The service
// may have sent all of them already; the first time it does not matter how many.
func (d *work) repeat(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.again > 0 && !d.mayRepeat(n) {
		return false
	}
	d.again += n
	return true
}

// receive writes what t brings into the sink.
func (f *fetch) receive(t Transfer) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	s := &f.d.sources
	sparse, _ := t.(Sparse)
	for left := f.left(); left > 0; {
		if sparse != nil {
			if n := min(sparse.Hole(), left); n > 0 {
				sparse.Skip(n)
				f.skip(n)
				left = f.left()
				continue
			}
		}
		// Not across a chunk's end, which would make two writes of it.
		n, err := t.Read(buf[:min(bufferSize, chunks.Size-f.pos%chunks.Size, left)])
		if err := f.write(buf[:n]); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if !f.whole && t.Surplus() {
			f.stop()
		}
		left = f.left()
		if here, took, _ := t.Speed(); here >= minSample && left <= max(1, s.guess(here, took)) {
			t.Ending()
		}
	}
	if here, took, yielded := t.Speed(); !yielded {
		s.measure(here, took)
	}
	return nil
}

// left is how many bytes the fetch has still to bring.
func (f *fetch) left() int64 {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.end - f.pos
}

// stop ends the fetch with the last chunk that is complete.
func (f *fetch) stop() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.ranges.cut(f, chunks.Of(f.pos))
}

const (
	// overtakeTime is how much sooner what a reader waits for must come with a request of
	// its own.
	overtakeTime = 25 * time.Millisecond
	// overtakeDistance is how far away it must be where no speed is known.
	overtakeDistance = 2 << 20
)

// isFar reports whether a reader at that place would have it sooner with a request of its
// own. Who reads in order, in several requests of the kernel's, has another one waiting
// not far before it. Call with mu held.
func (f *fetch) isFar(at int64) bool {
	from := f.pos
	for _, w := range f.waiters {
		from = max(from, w.target)
	}
	speed := f.d.sources.known()
	if took := time.Since(f.begun); f.pos > f.first && took > 0 {
		speed = float64(f.pos-f.first) / took.Seconds()
	}
	if speed == 0 {
		return at-from > overtakeDistance
	}
	travel := f.d.sources.best().Scheduler().Latency.Usual() + overtakeTime
	return at-from > max(chunks.Size, int64(speed*travel.Seconds()))
}

// write puts p at the watermark, without what the fetch does not own.
func (f *fetch) write(p []byte) error {
	for len(p) > 0 {
		n := min(int64(len(p)), chunks.Size-f.pos%chunks.Size)
		switch mine, left := f.owns(); {
		case mine:
			if _, err := f.d.opts.Sink.WriteAt(p[:n], f.pos); err != nil {
				return err
			}
		case !left:
			return errNothingLeft
		}
		f.advance(n)
		p = p[n:]
	}
	return nil
}

// skip is write for n zeros, in whole chunks, which the sink has already as a hole.
func (f *fetch) skip(n int64) {
	for n > 0 {
		step := min(n, chunks.Size)
		f.advance(step)
		n -= step
	}
}

// owns reports whether the fetch may write the chunk that its watermark is in, and
// whether there is a reason for it to go on.
func (f *fetch) owns() (mine, left bool) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	c := chunks.Of(f.pos)
	if d.ranges.owner[c] == f {
		return true, true
	}
	for ; c < chunks.Count(f.end); c++ {
		if d.ranges.owner[c] == f {
			return false, true
		}
	}
	return false, f.whole
}

// advance notes that the fetch has come n bytes further, and wakes who waited for them.
func (f *fetch) advance(n int64) {
	d := f.d
	d.mu.Lock()
	c := chunks.Of(f.pos)
	f.pos += n
	if f.begun.IsZero() {
		f.begun, f.first = time.Now(), f.pos
	}
	d.received, d.heard = d.received+n, time.Now()
	complete := f.pos == min((c+1)*chunks.Size, d.opts.Size) && d.ranges.owner[c] == f
	if complete {
		delete(d.ranges.owner, c)
		d.opts.Sink.Complete(c)
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
	if len(waiting) == 0 && f.urgent && f.transfer != nil {
		f.demote()
	}
	d.mu.Unlock()
	if complete {
		d.opts.Sink.Changed()
	}
}

// finish ends a fetch. What it did not bring is missing again, and waiters look for
// themselves what to do about it.
func (f *fetch) finish(err error) {
	d := f.d
	d.mu.Lock()
	d.ranges.drop(f)
	f.err = err
	switch {
	case err == nil:
		d.failure = failure{}
	case errors.Is(err, ErrNoRoom):
		d.full = time.Now().Add(FullPause)
	}
	for _, w := range f.waiters {
		w.wake <- struct{}{}
	}
	f.waiters = nil
	close(f.done)
	d.mu.Unlock()
	d.opts.Sink.Changed()
}
