// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	bufferSize = 256 << 10
	// A body that broke off is asked for again, from where it ended. It may do so
	// any number of times as long as each brings backends.LeastProgress; without, for
	// no longer than the source's timeout, and this many times where nobody waits, or
	// something came each time.
	maxRetries = 5
	retryMin   = 100 * time.Millisecond
	// FullPause is how long the disk counts as full before it is tried again.
	FullPause = 10 * time.Second
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A fetch is one range on its way from a registry into the sink. Its fields are guarded
// by Download.mu; pos and slot change in the fetch's own goroutine only.
type fetch struct {
	d        *Download
	off, end int64         // the range; off is the start of a chunk, end that of another or the blob's
	pos      int64         // the watermark: what lies before it was written, where the fetch owns it
	urgent   bool          // a reader waits for it
	demanded bool          // it was made for a reader: others yield to it
	hedged   bool          // it has been asked for twice
	slot     *sched.Slot   // of the attempt under way; nil between attempts
	whole    bool          // a stream from the blob's start, for services without ranges
	resumed  bool          // whole, but broken off: the rest is asked for before all is again
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
func (d *Download) claim(off, end int64, urgent bool) *fetch {
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

// run brings the fetch to its end.
// Errors: ErrNoRoom, errNoRanges; those of Source.Open; of the sink.
func (f *fetch) run() error {
	d := f.d
	defer f.release()
	if err := d.opts.Sink.Reserve(min(f.end-f.off, maxFill)); err != nil {
		return err
	}
	moved := time.Now()
	for tries, drips := 0, 0; ; {
		before := f.pos
		src := d.sources.best()
		err := f.attempt(src)
		if f.pos > before {
			f.resumed = f.whole
		}
		if f.pos-before >= backends.LeastProgress {
			tries, drips, moved = 0, 0, time.Now()
		}
		switch {
		case d.ctx.Err() != nil:
			return ErrClosed
		case f.pos == f.end, errors.Is(err, errNothingLeft):
			return nil
		case errors.Is(err, errNoRanges) && f.whole:
			f.resumed = false
			continue
		case errors.Is(err, errNoRanges):
			d.noRanges(src)
			return err
		case !resumable(err) && d.sources.demote(src):
			continue
		case !resumable(err):
			return err
		case errors.Is(err, errStalled):
			src.Scheduler().Stalled()
		}
		tries++
		if f.pos > before {
			drips++
		}
		if drips > maxRetries {
			return fmt.Errorf("%w: %w", errDrips, gaveUp(err))
		}
		if err := f.pause(tries, src.Timeout()-time.Since(moved), err); err != nil {
			return err
		}
	}
}

// noRanges notes that src sends only whole images.
func (d *Download) noRanges(src Source) {
	src.Scheduler().Ranges.Ignored()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wholeOnly = true
}

// pause waits before the rest of the fetch is asked for again, after that many tries
// without progress; left is what is left of the source's timeout. It returns err, for
// the fetch's end, if there is no point in going on.
func (f *fetch) pause(tries int, left time.Duration, err error) error {
	wait := retryWait(tries)
	if left <= 0 || !closed(f.wanted) && (tries > maxRetries || wait > left) || !f.d.opts.InUse() {
		return gaveUp(err) // or nobody is left who would wait for it
	}
	if sleep(f.d.ctx, min(wait, left)) != nil {
		return ErrClosed
	}
	return nil
}

// attempt makes one request for what is left of the fetch, and a second one if the
// first gets stuck.
func (f *fetch) attempt(src Source) error {
	if err := f.acquire(src.Scheduler()); err != nil {
		return err
	}
	defer f.release()
	off := f.pos
	if f.whole && !f.resumed {
		off = 0
	}
	first := newRequest(backends.Demanded(f.d.ctx, f.wanted), off)
	first.slot = f.slot
	defer first.close()
	h := f.watch(src, first.cancel)
	err := first.open(src, f.end-off)
	if err == nil {
		err = f.take(first, h)
	}
	second := h.stop()
	if second == nil {
		return first.reason(err)
	}
	defer second.slot.Release()
	defer second.close()
	if f.pos == f.end {
		return nil
	}
	h = f.watch(src, second.cancel)
	defer h.stop()
	return second.reason(f.take(second, h))
}

// take writes what a request brings into the sink.
func (f *fetch) take(r *request, h *hedge) error {
	h.begin()
	if f.demanded {
		f.slot.Answered()
	}
	return f.receive(&watched{r.body, h}, f.pos-r.off)
}

// acquire waits for a slot of s; a fetch in the background comes with one.
func (f *fetch) acquire(s *sched.Scheduler) error {
	f.d.mu.Lock()
	old := f.slot
	if old != nil && old.Of(s) {
		f.d.mu.Unlock()
		return nil
	}
	priority := sched.Background
	if f.urgent {
		priority = sched.Demanded
	}
	slot := s.Ask(priority)
	f.slot = slot
	f.d.mu.Unlock()
	if old != nil {
		old.Release()
	}
	return slot.Wait(f.d.ctx)
}

// release gives the fetch's slot back.
func (f *fetch) release() {
	f.d.mu.Lock()
	slot := f.slot
	f.slot = nil
	f.d.mu.Unlock()
	if slot != nil {
		slot.Release()
	}
}

// receive writes body into the sink, after its first skip bytes, which are here.
func (f *fetch) receive(body io.Reader, skip int64) error {
	if _, err := io.CopyN(io.Discard, body, skip); err != nil {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	m := meter{sources: &f.d.sources, start: time.Now(), first: f.pos}
	for f.pos < f.end {
		m.yielded = f.slot.Yield(f.d.ctx) || m.yielded
		// Not across a chunk's end, which would make two writes of it.
		n, err := body.Read(buf[:min(bufferSize, chunks.Size-f.pos%chunks.Size, f.end-f.pos)])
		if werr := f.write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case f.pos == f.end:
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: the answer ended at byte %d", backends.ErrUnavailable, f.pos)
		case err != nil:
			return err
		}
		if m.look(f.pos) && f.end-f.pos <= m.ahead {
			f.slot.Ending()
		}
	}
	if !m.yielded {
		f.d.sources.measure(f.pos-m.first, time.Since(m.start))
	}
	return nil
}

// A meter measures how fast a body comes in.
type meter struct {
	sources *sources
	start   time.Time
	first   int64 // where it began
	yielded bool  // it was slowed down on purpose
	ahead   int64 // bytes that come in while a request travels
}

// look is called when all before pos is here. It reports whether ahead is known.
func (m *meter) look(pos int64) bool {
	if m.ahead == 0 && pos-m.first >= minPiece/2 {
		m.ahead = max(1, m.sources.guess(pos-m.first, time.Since(m.start)))
	}
	return m.ahead > 0
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

// retryWait is how long to wait before a body is asked for again.
func retryWait(tries int) time.Duration { return jitter(retryMin << min(tries, 4)) }

// jitter returns a random time of at most 2·d, d on average.
func jitter(d time.Duration) time.Duration { return rand.N(max(2*d, 1)) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
