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
)

// A try is one call of the backend: it holds a slot, ends by itself after a
// silence, and tells the breaker how it went.
type try struct {
	c      *Client
	cancel context.CancelCauseFunc
	leave  func()        // gives the slot back
	limit  time.Duration // of silence; 0 for none
	probe  atomic.Bool   // until the breaker is told
	heard  atomic.Bool   // the service answered with at least a byte

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	resting bool
}

var errSilence = errors.New("no answer in time")

// begin waits for a slot and returns a try with its context. After a nil
// error, end or keep must be called. Errors: a permanent one.
func (c *Client) begin(ctx context.Context, limit time.Duration, enter func(context.Context) (func(), error)) (context.Context, *try, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, backoff.Permanent(err)
	}
	probe, err := c.breaker.allow()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := &try{c: c, cancel: cancel, limit: limit}
	if limit > 0 {
		t.timer = time.AfterFunc(limit, func() { cancel(errSilence) })
	}
	t.leave, err = enter(ctx)
	if err == nil && !probe {
		// Those before us may have found out meanwhile that nobody answers.
		if probe, err = c.breaker.allow(); err != nil {
			t.stop()
			t.leave()
			return nil, nil, err
		}
	}
	t.probe.Store(probe)
	if err != nil {
		t.stop()
		c.breaker.done(probe, unknown, nil)
		if errors.Is(err, errSilence) {
			err = fmt.Errorf("%w: %d requests are under way for over %v", context.DeadlineExceeded, c.opts.Concurrency, limit)
		}
		return nil, nil, backoff.Permanent(err)
	}
	trace := &httptrace.ClientTrace{GotFirstResponseByte: t.hear}
	return OnProgress(httptrace.WithClientTrace(ctx, trace), t.goesOn), t, nil
}

// enterAgain waits for a slot after leave, and for the service from then on.
func (t *try) enterAgain(tried context.Context) error {
	leave, err := t.c.gate.enter(tried)
	if err == nil {
		t.leave = leave
		t.alive()
	}
	return err
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

// hear notes that the service answers. The breaker is told at once: a try can
// last for hours, a push or a listing whose consumer takes its time, and while it
// is the probe everything else fails.
func (t *try) hear() {
	if !t.heard.Swap(true) {
		t.c.breaker.done(t.probe.Swap(false), answered, nil)
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

// settle says what err means and tells the breaker.
func (t *try) settle(ctx, tried context.Context, err error) error {
	var o outcome
	switch {
	case err == nil:
		o = answered
	case ctx.Err() != nil:
		o, err = unknown, ctx.Err()
	case context.Cause(tried) == errSilence: //nolint:errorlint // the value that begin set, nothing else
		o, err = silence, fmt.Errorf("%w: no answer in %v", context.DeadlineExceeded, t.limit)
	default:
		err = classify(err)
		o = answered
		if errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			o = silence
		}
	}
	if o == silence && t.heard.Load() {
		o = answered
	}
	t.c.breaker.done(t.probe.Swap(false), o, err)
	return err
}

// classify keeps what a backend said in sentinels and turns what came up from
// the network unsaid (from a service's own library, say) into ErrUnavailable.
func classify(err error) error {
	for _, s := range []error{ErrUnauthorized, ErrRateLimited, ErrUnavailable, ErrCorrupt, ErrChanged, ErrReadOnly, ErrNotAllowed, errors.ErrUnsupported} {
		if errors.Is(err, s) {
			return err
		}
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
