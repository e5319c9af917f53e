// SPDX-License-Identifier: Apache-2.0

package cache

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

// idlePatience is how many times longer than for a reader a stalled request is
// left alone when nobody waits for it.
const idlePatience = 4

var errOvertaken = errors.New("another request was quicker")

// An answer is the body of one request, with what ends it.
type answer struct {
	ctx    context.Context //nolint:containedctx // the request's own, to tell why it ended
	cancel context.CancelCauseFunc
	off    int64 // of the body's next byte
	body   io.ReadCloser
	slot   *sched.Slot // its own; nil if it uses that of the flight
}

func newAnswer(ctx context.Context, off int64) *answer {
	a := &answer{off: off}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	return a
}

// open asks for n bytes. Errors: errNoRanges; *openError.
func (a *answer) open(src source, n int64) error {
	asked := time.Now()
	body, err := src.client.Open(a.ctx, src.image, a.off, n)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && a.off > 0:
		return errNoRanges
	case err != nil:
		return &openError{err}
	}
	a.body = body
	src.sched.Latency.Note(time.Since(asked))
	if a.off > 0 {
		src.sched.Ranges.Given()
	}
	return nil
}

// reason is err, or errStalled if that is why the answer ended.
func (a *answer) reason(err error) error {
	if err != nil && errors.Is(context.Cause(a.ctx), errStalled) {
		return errStalled
	}
	return err
}

// close can be called again.
func (a *answer) close() {
	if a.body != nil {
		a.body.Close()
	}
	a.cancel(nil)
	if a.slot != nil {
		a.slot.Release()
		a.slot = nil
	}
}

// A vigil watches over one request of a flight. Where that makes no progress for
// much longer than its service usually takes, and a reader waits, what is missing
// is asked for a second time, on another connection: whichever brings a byte
// first is taken, and the other one is cancelled. All bytes are written by the
// flight itself, so none is written twice. A body that stays away for good ends
// with errStalled; that requests are answered at all is the client's affair.
type vigil struct {
	data   *data
	flight *flight
	src    source
	cancel context.CancelCauseFunc // of the request
	period time.Duration           // after which to look again
	stuck  time.Duration           // without a byte: time for a second request
	gone   time.Duration           // without a byte: the end

	mu     sync.Mutex // guards the fields below
	timer  *time.Timer
	idle   time.Duration
	begun  bool    // the answer is here
	asleep bool    // nobody reads it just now
	over   bool    // no second request any more
	racing *answer // the second request under way; nil if there is none
	second *answer // it has won
}

// watch begins to watch over a request of f; end must be called.
func (d *data) watch(f *flight, src source, cancel context.CancelCauseFunc) *vigil {
	v := &vigil{data: d, flight: f, src: src, cancel: cancel,
		stuck: src.sched.Latency.Stuck(), gone: d.patience() / 3}
	v.period = min(v.stuck, v.gone)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer = time.AfterFunc(v.period, v.look)
	return v
}

// begin notes that the answer is here.
func (v *vigil) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.begun = true
	v.progress()
}

// wake notes that the answer is read from now on.
func (v *vigil) wake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asleep = false
}

// progress notes that a byte came. Call with mu held.
func (v *vigil) progress() {
	v.idle, v.asleep = 0, true
	if v.racing != nil && v.second == nil {
		v.racing.cancel(errOvertaken)
		v.racing = nil
	}
	if !v.over {
		v.timer.Reset(v.period)
	}
}

// end ends the watch. It returns the second request if that was quicker; then
// the caller closes it.
func (v *vigil) end() *answer {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	v.timer.Stop()
	if v.second != nil {
		return v.second
	}
	if v.racing != nil {
		v.racing.cancel(errOvertaken)
	}
	return nil
}

// look runs when there was no progress for another period.
func (v *vigil) look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	if v.begun && v.asleep { // what takes long is the disk
		v.timer.Reset(v.period)
		return
	}
	v.idle += v.period
	if v.begun && v.idle >= v.gone {
		v.cancel(errStalled)
		return
	}
	if v.racing == nil && v.idle >= v.stuck && v.mayHedge() {
		second := newAnswer(backends.Demanded(v.data.ctx, v.flight.wanted), 0)
		if v.data.item.cache.spawn(func() { v.race(second) }) {
			v.racing = second
		}
	}
	v.timer.Reset(v.period)
}

// mayHedge reports whether to make a second request now. Call with mu held.
func (v *vigil) mayHedge() bool {
	d, f := v.data, v.flight
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.hedged || f.whole || !f.urgent && v.idle < idlePatience*v.stuck {
		return false
	}
	// The service may have sent all that is asked for again. The first time it
	// does not matter how much that is.
	again := f.end - f.pos
	if d.stolen > 0 && (d.stolen+again)*stealShare > d.size || !v.src.sched.Latency.Hedge() {
		return false
	}
	d.stolen += again
	f.hedged = true
	return true
}

// race makes the second request and reads its first bytes: it has won if the
// first request has brought none by then.
func (v *vigil) race(second *answer) {
	err := v.run(second)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || v.over || v.racing != second {
		second.close()
		if v.racing == second {
			v.racing = nil
		}
		return
	}
	v.second = second
	v.cancel(errOvertaken)
}

func (v *vigil) run(second *answer) error {
	slot := v.src.sched.Ask(sched.Demanded)
	if err := slot.Wait(second.ctx); err != nil {
		return err
	}
	second.slot = slot
	v.data.mu.Lock()
	second.off = v.flight.pos
	n := v.flight.end - second.off
	v.data.mu.Unlock()
	if err := second.open(v.src, n); err != nil {
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

// alive tells the vigil of each read.
type alive struct {
	io.Reader
	vigil *vigil
}

func (a *alive) Read(p []byte) (int, error) {
	a.vigil.wake()
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.vigil.src.sched.Received(int64(n))
		a.vigil.mu.Lock()
		defer a.vigil.mu.Unlock()
		a.vigil.progress()
	}
	return n, err
}
