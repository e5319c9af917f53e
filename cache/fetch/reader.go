// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A reader is somebody who waits for bytes. He gets an error that may pass only when
// nothing has come for as long as the remote's timeout allows: until then a registry
// that is away only makes him wait.
type reader struct {
	d     *work
	began time.Time
	moved time.Time // when what he waits for came further
	seen  int64     // how far that was, where it is all of the blob
}

func (d *work) reader() *reader {
	now := time.Now()
	return &reader{d: d, began: now, moved: now}
}

// note notes how many bytes came in so far.
func (r *reader) note(received int64) {
	if received-r.seen >= backends.LeastProgress {
		r.seen, r.moved = received, time.Now()
	}
}

// ends returns err if it is the end of the wait. Call with mu held.
func (r *reader) ends(err error) error {
	d := r.d
	final := !mayPass(err) || backends.Drips(err) || backends.RetryAfter(err) > 0
	if !final && time.Since(r.moved) < d.sources.best().Timeout() {
		return nil
	}
	if _, short := backends.Shortage(err); !short && d.failure.holds(time.Now()) == nil { // else another reader has noted it
		d.failure.note(err)
	}
	return err
}

// wait returns when the watermark of f has reached target or f has ended.
// Errors: ctx's; context.DeadlineExceeded after patience without progress; why f ended
// before, if that is the end of the wait.
func (r *reader) wait(ctx context.Context, f *fetch, target int64) error {
	d := r.d
	w := &waiter{target: target, wake: make(chan struct{}, 1)}
	d.mu.Lock()
	last := f.pos
	if f.ended() || last >= target {
		d.mu.Unlock()
		return r.ended(f, last, target)
	}
	f.waiters = append(f.waiters, w)
	d.mu.Unlock()
	patience := d.Patience()
	timer := time.NewTimer(max(patience-time.Since(r.moved), 0))
	defer timer.Stop()
	for first := last; ; {
		select {
		case <-w.wake:
			return r.ended(f, first, target)
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		d.mu.Lock()
		now := f.pos
		d.mu.Unlock()
		if now == last {
			return errNoProgress(patience)
		}
		last = now
		timer.Reset(patience)
	}
}

// ended returns why f, which had come to first when r began to wait for it, got no
// further than before target, if r is to be told: else the rest is asked for again.
func (r *reader) ended(f *fetch, first, target int64) error {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.pos >= target || f.pos-first >= backends.LeastProgress {
		r.moved = time.Now()
	}
	if f.pos >= target || f.err == nil {
		return nil
	}
	for _, own := range []error{errNoRanges, ErrNoRoom, ErrClosed} { // need knows what to do
		if errors.Is(f.err, own) {
			return nil
		}
	}
	return r.ends(f.err)
}

// filled returns why the background ended that r waited for, if that is the end of the
// wait.
func (r *reader) filled(err error) error {
	if err == nil || errors.Is(err, ErrNoRoom) || r.d.ctx.Err() != nil {
		return err
	}
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	return r.ends(err)
}
