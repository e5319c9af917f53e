// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends/sched"
)

// idlePatience is how many times longer than for a reader a stuck request is left alone
// when nobody waits for it.
const idlePatience = 4

var errOvertaken = errors.New("another request was quicker")

// A request is one request of a transfer, and its body.
type request struct {
	ctx    context.Context //nolint:containedctx // the request's own, to tell why it ended
	cancel context.CancelCauseFunc
	off    int64  // of the body's first byte
	head   []byte // bytes of the body that were read already
	body   io.ReadCloser
	slot   *sched.Slot
	own    bool // the slot ends with the request, and not with the transfer
}

func newRequest(ctx context.Context, off int64) *request {
	r := &request{off: off}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// open asks for n bytes. Errors: errors.ErrUnsupported if there are no ranges; *OpenError.
func (r *request) open(c *Client, img Image, n int64) error {
	asked := time.Now()
	body, err := c.Open(sched.With(r.ctx, r.slot), img, r.off, n)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && r.off > 0:
		return errors.ErrUnsupported
	case err != nil:
		return &OpenError{err}
	}
	r.body = body
	c.sched.Latency.Note(time.Since(asked))
	if r.off > 0 {
		c.sched.Ranges.Given()
	}
	return nil
}

// read reads the body, and tells the hedge and the scheduler.
func (r *request) read(h *hedge, p []byte) (int, error) {
	h.wake()
	n, err := copy(p, r.head), error(nil)
	if n > 0 {
		r.head = r.head[n:]
	} else {
		n, err = r.body.Read(p)
	}
	if n > 0 {
		r.slot.Received(int64(n))
		h.mu.Lock()
		defer h.mu.Unlock()
		h.progress()
	}
	return n, err
}

// reason is err, or errStalled if that is why the request ended.
func (r *request) reason(err error) error {
	if err != nil && errors.Is(context.Cause(r.ctx), errStalled) {
		return errStalled
	}
	return err
}

// close can be called again.
func (r *request) close() {
	if r.body != nil {
		r.body.Close()
	}
	r.cancel(nil)
	if r.own && r.slot != nil {
		r.slot.Release()
	}
}

// A hedge watches over one request of a transfer. Where that makes no progress for much
// longer than its service usually takes, and a reader waits, what is missing is asked
// for a second time, on another connection: whichever brings a byte first is taken, and
// the other one is cancelled. The transfer reads as one body, so no byte comes twice. A
// body that stays away for good ends with errStalled; whether requests are answered at
// all is for Client.Open to see.
type hedge struct {
	t      *Transfer
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
func (t *Transfer) watch(r *request) *hedge {
	h := &hedge{t: t, cancel: r.cancel, stuck: t.c.sched.Latency.Stuck(), gone: t.opts.Silence}
	if h.gone == 0 {
		h.gone = t.c.Timeout()
	}
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
		second := newRequest(Demanded(h.t.ctx, h.t.opts.Wanted), 0)
		if h.t.opts.Go(func() { h.race(second) }) {
			h.racing = second
		}
	}
	h.timer.Reset(h.period)
}

// allowed reports whether to make a second request now. Call with mu held.
func (h *hedge) allowed() bool {
	t := h.t
	if t.opts.Repeat == nil || t.opts.Whole {
		return false
	}
	t.mu.Lock()
	no := t.hedged || !t.urgent && h.idle < idlePatience*h.stuck
	n := t.end - t.pos
	t.mu.Unlock()
	latency := &t.c.sched.Latency
	if no || !latency.MayHedge() || !t.opts.Repeat(n) || !latency.Hedge() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hedged = true
	return true
}

// race makes the second request and reads its first bytes: it has won if the first
// request has brought none by then.
func (h *hedge) race(second *request) {
	err := h.try(second)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || h.stopped || h.racing != second {
		second.close()
		if h.racing == second {
			h.racing = nil
		}
		return
	}
	h.second = second
	h.cancel(errOvertaken)
}

func (h *hedge) try(second *request) error {
	t := h.t
	second.slot, second.own = t.c.sched.Ask(sched.Demanded), true
	if err := second.slot.Wait(second.ctx); err != nil {
		return err
	}
	t.mu.Lock()
	second.off = t.pos
	n := t.end - second.off
	t.mu.Unlock()
	if err := second.open(t.c, t.img, n); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	got, err := second.body.Read(buf)
	if got == 0 {
		return err
	}
	second.head = buf[:got]
	return nil
}
