// SPDX-License-Identifier: Apache-2.0

package cache

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
	// no longer than the remote's timeout, and this many times where nobody waits, or
	// something came each time.
	maxRetries = 5
	retryMin   = 100 * time.Millisecond
	// fullPause is how long the disk counts as full before it is tried again.
	fullPause = 10 * time.Second
)

var (
	buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

	errStalled     = errors.New("the transfer stalled")
	errNoRanges    = errors.New("the service sends only whole images")
	errNothingLeft = errors.New("others fetch the rest")
	errDrips       = errors.New("the registry sends next to nothing at a time")
)

// settle draws the conclusions from how a flight ended. Call with mu held.
func (d *data) settle(err error) {
	switch {
	case err == nil:
		d.trouble = trouble{}
	case errors.Is(err, errNoRoom):
		d.full = time.Now().Add(fullPause)
	}
}

// fetch brings the flight to its end.
// Errors: errNoRoom, errNoRanges; those of Client.Open; of the local disk.
func (d *data) fetch(f *flight) error {
	defer d.alight(f)
	if err := d.makeRoom(min(f.end-f.off, maxFill)); err != nil {
		return err
	}
	moved := time.Now()
	for tries, drips := 0, 0; ; {
		before := f.pos
		src := d.source()
		err := d.attempt(f, src)
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
			d.wholeOnly.Store(true)
			src.sched.Ranges.Ignored()
			return err
		case !passing(err) && d.demote(src):
			continue
		case !passing(err):
			return err
		case errors.Is(err, errStalled):
			src.sched.Stalled()
		}
		tries++
		if f.pos > before {
			drips++
		}
		if drips > maxRetries {
			return fmt.Errorf("%w: %w", errDrips, gaveUp(err))
		}
		if err := d.rest(f, tries, src.client.Timeout()-time.Since(moved), err); err != nil {
			return err
		}
	}
}

// rest waits before the rest of the flight is asked for again, after that many tries
// without progress; left is what is left of the remote's timeout. It returns err, for
// the flight's end, if there is no point in going on.
func (d *data) rest(f *flight, tries int, left time.Duration, err error) error {
	wait := retryWait(tries)
	if left <= 0 || !f.isWanted() && (tries > maxRetries || wait > left) || !d.item.open(d) {
		return gaveUp(err) // or nobody is left who would wait for it
	}
	if sleep(d.ctx, min(wait, left)) != nil {
		return ErrClosed
	}
	return nil
}

// attempt makes one request for what is left of the flight, and a second one if
// the first gets stuck.
func (d *data) attempt(f *flight, src source) error {
	if err := d.board(f, src.sched); err != nil {
		return err
	}
	defer d.alight(f)
	off := f.pos
	if f.whole && !f.resumed {
		off = 0
	}
	first := newAnswer(backends.Demanded(d.ctx, f.wanted), off)
	defer first.close()
	v := d.watch(f, src, first.cancel)
	err := first.open(src, f.end-off)
	if err == nil {
		err = d.take(f, first, v)
	}
	second := v.end()
	if second == nil {
		return first.reason(err)
	}
	defer second.close()
	if f.pos == f.end {
		return nil
	}
	v = d.watch(f, src, second.cancel)
	defer v.end()
	return second.reason(d.take(f, second, v))
}

// take writes what an answer brings into the file.
func (d *data) take(f *flight, a *answer, v *vigil) error {
	v.begin()
	if f.demanded {
		f.slot.Answered()
	}
	return d.receive(f, &alive{a.body, v}, f.pos-a.off)
}

// An openError is one that Client.Open gave after its own retries: to ask once
// more would be too much.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

// board waits for a slot of s; a filler's flight comes with one.
func (d *data) board(f *flight, s *sched.Scheduler) error {
	d.mu.Lock()
	old := f.slot
	if old != nil && old.Of(s) {
		d.mu.Unlock()
		return nil
	}
	priority := sched.Background
	if f.urgent {
		priority = sched.Demanded
	}
	slot := s.Ask(priority)
	f.slot = slot
	d.mu.Unlock()
	if old != nil {
		old.Release()
	}
	return slot.Wait(d.ctx)
}

// alight gives the flight's slot back.
func (d *data) alight(f *flight) {
	d.mu.Lock()
	slot := f.slot
	f.slot = nil
	d.mu.Unlock()
	if slot != nil {
		slot.Release()
	}
}

// receive writes body into the file, after its first skip bytes, which are here.
func (d *data) receive(f *flight, body *alive, skip int64) error {
	if _, err := io.CopyN(io.Discard, body, skip); err != nil {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	m := meter{data: d, start: time.Now(), first: f.pos}
	for f.pos < f.end {
		m.yielded = f.slot.Yield(d.ctx) || m.yielded
		// Not across a chunk's end, which would make two writes of it.
		n, err := body.Read(buf[:min(bufferSize, chunks.Size-f.pos%chunks.Size, f.end-f.pos)])
		if werr := d.write(f, buf[:n]); werr != nil {
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
		d.measure(f.pos-m.first, time.Since(m.start))
	}
	return nil
}

// A meter watches how fast a body comes in.
type meter struct {
	data    *data
	start   time.Time
	first   int64 // where it began
	yielded bool  // it was slowed down on purpose
	ahead   int64 // bytes that come in while a request travels
}

// look is called when all before pos is here. It reports whether ahead is known.
func (m *meter) look(pos int64) bool {
	if m.ahead == 0 && pos-m.first >= minPiece/2 {
		m.ahead = max(1, m.data.guess(pos-m.first, time.Since(m.start)))
	}
	return m.ahead > 0
}

// write puts p at the watermark, without what the flight does not own.
func (d *data) write(f *flight, p []byte) error {
	for len(p) > 0 {
		n := min(int64(len(p)), chunks.Size-f.pos%chunks.Size)
		switch mine, left := d.owns(f); {
		case mine:
			if err := d.writeFile(p[:n], f.pos); err != nil {
				return err
			}
		case !left:
			return errNothingLeft
		}
		d.advance(f, n)
		p = p[n:]
	}
	return nil
}

// writeFile writes to the file; when the disk is full it evicts and tries again.
// Errors: errNoRoom; those of the local disk.
func (d *data) writeFile(p []byte, off int64) error {
	_, err := d.written.WriteAt(p, off)
	if isFull(err) && d.item.cache.evictFor(int64(len(p)), d.item.open(d)) {
		_, err = d.written.WriteAt(p, off)
	}
	switch {
	case err == nil:
		d.item.cache.grew(int64(len(p)))
		return nil
	case isFull(err):
		d.item.cache.opts.Log.Warn("no room for the image cache", "dir", d.item.cache.dir, "err", err)
		return errNoRoom
	}
	return localError("write", err)
}

// guess is measure for the beginning of the first stream: the next ones are
// asked for before it ends. It returns how much of a stream comes in while a
// request travels.
func (d *data) guess(n int64, took time.Duration) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		d.rate = float64(n) / max(took.Seconds(), 1e-6)
	}
	return d.inTransit()
}

// inTransit is how much of one stream comes in while a request travels. Call with
// mu held.
func (d *data) inTransit() int64 {
	return int64(d.rate * d.sources[0].sched.Latency.Usual().Seconds())
}

// measure notes how fast a stream was, see fillSize.
func (d *data) measure(n int64, took time.Duration) {
	if n < minPiece/2 {
		return
	}
	rate := float64(n) / max(took.Seconds(), 1e-6)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		d.rate = rate
	}
	d.rate += (rate - d.rate) / 4
}

// source returns the best place to fetch from.
func (d *data) source() source {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sources[0]
}

// demote drops a source that cannot serve the blob any more (deleted there,
// access withdrawn), if there is another one.
func (d *data) demote(s source) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sources) == 1 {
		return false
	}
	if d.sources[0].same(s) {
		d.sources = append([]source(nil), d.sources[1:]...)
	}
	return true
}

// passing reports whether a request for the rest may succeed at once.
func passing(err error) bool {
	var opened *openError
	return !errors.As(err, &opened) && mayPass(err)
}

// mayPass reports whether an error is none for ever.
func mayPass(err error) bool {
	for _, s := range []error{errStalled, io.ErrUnexpectedEOF, backends.ErrUnavailable, backends.ErrRateLimited, context.DeadlineExceeded} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// gaveUp is err in the sentinels of this package's callers.
func gaveUp(err error) error {
	switch {
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, backends.ErrUnavailable):
		return fmt.Errorf("%w: answers end before their length: %w", backends.ErrUnavailable, err)
	}
	return err
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
