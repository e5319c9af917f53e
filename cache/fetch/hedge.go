// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

const (
	// idlePatience is how many times longer than for a reader a stuck request is left
	// alone when nobody waits for it.
	idlePatience = 4
	// A blob may be asked for twice as long as no more than 1/againShare of it is.
	againShare = 64
)

var errOvertaken = errors.New("another request was quicker")

// A request is one request to a source, and its body.
type request struct {
	ctx    context.Context //nolint:containedctx // the request's own, to tell why it ended
	cancel context.CancelCauseFunc
	off    int64 // of the body's next byte
	body   io.ReadCloser
	slot   *sched.Slot
}

func newRequest(ctx context.Context, off int64) *request {
	r := &request{off: off}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// open asks for n bytes. Errors: errNoRanges; *finalError.
func (r *request) open(src Source, n int64) error {
	asked := time.Now()
	body, err := src.Open(sched.With(r.ctx, r.slot), r.off, n)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && r.off > 0:
		return errNoRanges
	case err != nil:
		return &finalError{err}
	}
	r.body = body
	s := src.Scheduler()
	s.Latency.Note(time.Since(asked))
	if r.off > 0 {
		s.Ranges.Given()
	}
	return nil
}

// reason is err, or errStalled if that is why the request ended.
func (r *request) reason(err error) error {
	if err != nil && errors.Is(context.Cause(r.ctx), errStalled) {
		return errStalled
	}
	return err
}

// close can be called again. The slot stays the caller's.
func (r *request) close() {
	if r.body != nil {
		r.body.Close()
	}
	r.cancel(nil)
}

// A hedge watches over one request of a fetch. Where that makes no progress for much
// longer than its service usually takes, and a reader waits, what is missing is asked
// for a second time, on another connection: whichever brings a byte first is taken, and
// the other one is cancelled. All bytes are written by the fetch itself, so none is
// written twice. A body that stays away for good ends with errStalled; whether requests
// are answered at all is the source's affair.
type hedge struct {
	fetch  *fetch
	src    Source
	cancel context.CancelCauseFunc // of the request
	period time.Duration           // after which to look again
	stuck  time.Duration           // without a byte: time for a second request
	gone   time.Duration           // without a byte: the end

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	idle    time.Duration
	begun   bool     // the answer is here
	asleep  bool     // nobody reads it just now
	stopped bool     // no second request any more
	racing  *request // the second request under way; nil if there is none
	second  *request // it has won
}

// watch begins to watch over a request; stop must be called.
func (f *fetch) watch(src Source, cancel context.CancelCauseFunc) *hedge {
	h := &hedge{fetch: f, src: src, cancel: cancel,
		stuck: src.Scheduler().Latency.Stuck(), gone: f.d.Patience() / 3}
	h.period = min(h.stuck, h.gone)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(h.period, h.look)
	return h
}

// begin notes that the answer is here.
func (h *hedge) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun = true
	h.progress()
}

// wake notes that the answer is read from now on.
func (h *hedge) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asleep = false
}

// progress notes that a byte came. Call with mu held.
func (h *hedge) progress() {
	h.idle, h.asleep = 0, true
	if h.racing != nil && h.second == nil {
		h.racing.cancel(errOvertaken)
		h.racing = nil
	}
	if !h.stopped {
		h.timer.Reset(h.period)
	}
}

// stop ends the watch. It returns the second request if that was quicker; then the
// caller closes it.
func (h *hedge) stop() *request {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	h.timer.Stop()
	if h.second != nil {
		return h.second
	}
	if h.racing != nil {
		h.racing.cancel(errOvertaken)
	}
	return nil
}

// look runs when there was no progress for another period.
func (h *hedge) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	if h.begun && h.asleep { // what takes long is the disk
		h.timer.Reset(h.period)
		return
	}
	h.idle += h.period
	if h.begun && h.idle >= h.gone {
		h.cancel(errStalled)
		return
	}
	if h.racing == nil && h.idle >= h.stuck && h.allowed() {
		second := newRequest(backends.Demanded(h.fetch.d.ctx, h.fetch.wanted), 0)
		if h.fetch.d.opts.Go(func() { h.race(second) }) {
			h.racing = second
		}
	}
	h.timer.Reset(h.period)
}

// allowed reports whether to make a second request now. Call with mu held.
func (h *hedge) allowed() bool {
	f, d := h.fetch, h.fetch.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.hedged || f.whole || !f.urgent && h.idle < idlePatience*h.stuck {
		return false
	}
	// The service may have sent all that is asked for again. The first time it does
	// not matter how much that is.
	n := f.end - f.pos
	if d.again > 0 && !d.mayRepeat(n) || !h.src.Scheduler().Latency.Hedge() {
		return false
	}
	d.again += n
	f.hedged = true
	return true
}

// mayRepeat reports whether n bytes more may be asked for twice. Call with mu held.
func (d *Download) mayRepeat(n int64) bool { return (d.again+n)*againShare <= d.opts.Size }

// race makes the second request and reads its first bytes: it has won if the first
// request has brought none by then.
func (h *hedge) race(second *request) {
	err := h.try(second)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || h.stopped || h.racing != second {
		second.close()
		second.slot.Release()
		if h.racing == second {
			h.racing = nil
		}
		return
	}
	h.second = second
	h.cancel(errOvertaken)
}

func (h *hedge) try(second *request) error {
	second.slot = h.src.Scheduler().Ask(sched.Demanded)
	if err := second.slot.Wait(second.ctx); err != nil {
		return err
	}
	h.fetch.d.mu.Lock()
	second.off = h.fetch.pos
	n := h.fetch.end - second.off
	h.fetch.d.mu.Unlock()
	if err := second.open(h.src, n); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	got, err := second.body.Read(buf)
	if got == 0 {
		return err
	}
	second.body = &preceded{io.MultiReader(bytes.NewReader(buf[:got]), second.body), second.body}
	return nil
}

// preceded is a body of which the first bytes were read already.
type preceded struct {
	io.Reader
	io.Closer
}

// watched is a body that tells the hedge and the scheduler of each read.
type watched struct {
	io.Reader
	hedge *hedge
}

func (w *watched) Read(p []byte) (int, error) {
	w.hedge.wake()
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.hedge.src.Scheduler().Received(int64(n))
		w.hedge.mu.Lock()
		defer w.hedge.mu.Unlock()
		w.hedge.progress()
	}
	return n, err
}
