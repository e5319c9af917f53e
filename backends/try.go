// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends/sched"
)

// A try is one call of the backend: it holds a slot, ends by itself after a silence,
// and reports to the scheduler how it went.
type try struct {
	c      *Client
	cancel context.CancelCauseFunc
	slot   *sched.Slot // of its own; nil if the caller has one
	kind   sched.Priority
	limit  time.Duration // of silence; 0 for none
	pass   *sched.Pass
	heard  atomic.Bool // the service answered with at least a byte

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	resting bool
}

var errSilence = errors.New("no answer in time")

// begin waits for a slot, and where somebody waits for the answer, for a turn. It
// returns a try with its context. After a nil error, end or keep must be called.
// Errors: a permanent one; where somebody waits, what may pass if neither came within
// limit.
func (c *Client) begin(ctx context.Context, limit time.Duration, kind sched.Priority) (context.Context, *try, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, backoff.Permanent(err)
	}
	tried, cancel := context.WithCancelCause(ctx)
	t := &try{c: c, cancel: cancel, limit: limit, kind: kind}
	if limit > 0 {
		t.timer = time.AfterFunc(limit, func() { cancel(errSilence) })
	}
	if err := t.admit(tried); err != nil {
		t.stop()
		if ctx.Err() != nil {
			err = backoff.Permanent(ctx.Err())
		}
		return nil, nil, err
	}
	trace := &httptrace.ClientTrace{GotFirstResponseByte: t.hear}
	return OnProgress(httptrace.WithClientTrace(tried, trace), t.goesOn), t, nil
}

// admit waits for a slot and asks whether the service is to be asked. Errors: those of
// begin.
func (t *try) admit(ctx context.Context) error {
	if demandOf(ctx).raised() {
		if err := t.ask(ctx, sched.Demanded); err != nil {
			return err
		}
		return t.enter(ctx)
	}
	if err := t.ask(ctx, t.kind); err != nil {
		return err
	}
	if err := t.enter(ctx); err != nil || t.pass.Probe() {
		return err
	}
	// Those before us may have found out meanwhile that nobody answers.
	err := t.ask(ctx, t.kind)
	if err != nil {
		t.leave()
	}
	return err
}

// ask asks whether a try of that priority may be made. Errors: ErrUnavailable, a
// permanent one where nobody waits.
func (t *try) ask(ctx context.Context, p sched.Priority) error {
	pass, err := t.c.sched.Admit(ctx, p)
	t.pass = pass
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: %v", ErrUnavailable, err)
	if p != sched.Demanded {
		err = backoff.Permanent(err)
	}
	return err
}

// enter waits for a slot, if the caller has none. Errors: those of begin.
func (t *try) enter(ctx context.Context) error {
	if sched.Held(ctx) != nil {
		return nil
	}
	slot := t.c.sched.Ask(t.kind)
	err := slot.Wait(ctx)
	if err == nil {
		t.slot = slot
		return nil
	}
	t.pass.Report(sched.Unknown, nil)
	if errors.Is(err, errSilence) {
		err = fmt.Errorf("%w: %d requests are under way for over %v", context.DeadlineExceeded, t.c.opts.Concurrency, t.limit)
		if demandOf(ctx).raised() {
			return err
		}
	}
	return backoff.Permanent(err)
}

// leave gives the slot back. Another call does nothing.
func (t *try) leave() {
	if t.slot != nil {
		t.slot.Release()
		t.slot = nil
	}
}

// enterAgain waits for a slot after leave, and for the service from then on.
func (t *try) enterAgain(tried context.Context) error {
	slot := t.c.sched.Ask(t.kind)
	if err := slot.Wait(tried); err != nil {
		return err
	}
	t.slot = slot
	t.alive()
	return nil
}

// alive starts the time limit anew.
func (t *try) alive() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resting = false; t.timer != nil {
		t.timer.Reset(t.limit)
	}
}

// goesOn is alive while the time limit is not suspended.
func (t *try) goesOn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil && !t.resting {
		t.timer.Reset(t.limit)
	}
}

// hear notes that the service answers. The scheduler is told at once: a try can
// last for hours, a push or a listing whose consumer takes its time, and while it
// is the probe everything else fails.
func (t *try) hear() {
	if !t.heard.Swap(true) {
		t.pass.Report(sched.Answered, nil)
	}
}

// rest suspends the time limit until alive is called.
func (t *try) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resting = true; t.timer != nil {
		t.timer.Stop()
	}
}

func (t *try) stop() {
	t.rest()
	t.cancel(nil)
}

// end ends the try and returns err in our sentinels. ctx is the context that
// begin was given.
func (t *try) end(ctx context.Context, tried context.Context, err error) error {
	err = t.settle(ctx, tried, err)
	t.stop()
	t.leave()
	return err
}

// keep ends the try but not its context and slot: they pass to a body.
func (t *try) keep(ctx context.Context, tried context.Context) (release func()) {
	_ = t.settle(ctx, tried, nil)
	t.rest()
	return func() { t.cancel(nil); t.leave() }
}

// settle says what err means and reports it to the scheduler.
func (t *try) settle(ctx, tried context.Context, err error) error {
	var o sched.Outcome
	switch {
	case err == nil:
		o = sched.Answered
	case ctx.Err() != nil:
		o, err = sched.Unknown, ctx.Err()
	case context.Cause(tried) == errSilence: //nolint:errorlint // the value that begin set, nothing else
		o, err = sched.Silence, fmt.Errorf("%w: no answer in %v", context.DeadlineExceeded, t.limit)
	default:
		err = classify(err)
		o = sched.Answered
		if errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			o = sched.Silence
		}
		if _, ok := Shortage(err); ok || isElsewhere(err) {
			o = sched.Unknown // it was not asked
		}
	}
	if o == sched.Silence && t.heard.Load() {
		o = sched.Answered
	}
	t.pass.Report(o, err)
	return err
}

// Elsewhere marks an error of another service than the remote's own, from which some image
// of it is read: it says nothing about the others.
func Elsewhere(err error) error { return &elsewhereError{err} }

type elsewhereError struct{ error }

func (e *elsewhereError) Unwrap() error { return e.error }

func isElsewhere(err error) bool {
	_, ok := errors.AsType[*elsewhereError](err)
	return ok
}

// classify keeps what a backend said in sentinels and turns what came up from
// the network unsaid (from a service's own library, say) into ErrUnavailable.
func classify(err error) error {
	for _, s := range []error{ErrUnauthorized, ErrRateLimited, ErrUnavailable, ErrCorrupt, ErrBadAnswer, ErrChanged, ErrReadOnly, ErrNotAllowed, errors.ErrUnsupported} {
		if errors.Is(err, s) {
			return err
		}
	}
	if _, ok := Shortage(err); ok {
		return TransportError(err)
	}
	// Before the sentinels of package fs: a refused connection can hold EACCES,
	// which is one of them.
	if isNetwork(err) {
		return TransportError(err)
	}
	// Canceled, but not by our caller: some inner limit, or a shared request.
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	return err
}

// transient reports whether the same call may succeed a little later.
func transient(err error) bool {
	if _, ok := errors.AsType[*backoff.PermanentError](err); ok {
		return false
	}
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRateLimited) || errors.Is(err, context.DeadlineExceeded)
}
