// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	breakerTries  = 5                // silent tries in a row that open the breaker …
	breakerWindow = 10 * time.Second // … or two, this far apart: time-outs are slow to count
	breakerMin    = 5 * time.Second  // how long it stays open at first; doubled after each probe in vain
	breakerMax    = 30 * time.Second
	turnMin       = 100 * time.Millisecond // between tries that somebody waits for while it is open; doubled after each
	turnMax       = 2 * time.Second
)

// A breaker stops a client from asking a service that does not answer. The zero
// breaker is closed.
//
//	         breakerTries, or two in breakerWindow, without an answer
//	closed ──────────────────────────────────────────────────────────── open ──┐
//	   └──────────────── an answer of any kind, to any try ────────────────┘   │ no answer to
//	                                                                       └───┘ the probe: twice the pause
//
// While it is open:
//
//	what somebody waits for (Demanded)   takes turns: one try after each gap
//	anything else                        fails at once; one probe after each pause
type breaker struct {
	mu      sync.Mutex // guards the fields below
	silent  int        // tries in a row without an answer
	first   time.Time  // of them
	last    error
	pause   time.Duration // 0 while closed
	until   time.Time     // no probe before
	probing bool
	gap     time.Duration // between two turns
	next    time.Time     // no turn before
	back    chan struct{} // closed when the breaker closes; nil while it is closed
}

// allow reports whether to try now, and whether that is the probe. After a nil
// error, done must be called. Errors: a permanent ErrUnavailable.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return false, nil
	}
	if wait := time.Until(b.until); wait > 0 || b.probing {
		next := "the next is on its way"
		if !b.probing {
			next = fmt.Sprintf("the next in %v", max(wait.Round(time.Second), time.Second))
		}
		return false, backoff.Permanent(fmt.Errorf("%w: no answer to the last %d requests, %s (%v)", ErrUnavailable, b.silent, next, b.last))
	}
	b.probing = true
	return true, nil
}

// turn waits until it is time for a try that somebody waits for. After a nil error,
// done must be called. Errors: ErrUnavailable when ctx ends first.
func (b *breaker) turn(ctx context.Context) error {
	for {
		wait, back := b.takeTurn()
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-back:
		case <-ctx.Done():
			timer.Stop()
			b.mu.Lock()
			defer b.mu.Unlock()
			return fmt.Errorf("%w: no answer to the last %d requests (%v)", ErrUnavailable, b.silent, b.last)
		}
		timer.Stop()
	}
}

// takeTurn takes the next turn if it is time for it. Else it returns how long that
// takes, and what is closed if the service answers before.
func (b *breaker) takeTurn() (wait time.Duration, back <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return 0, nil
	}
	if wait = time.Until(b.next); wait <= 0 {
		b.next, b.gap = time.Now().Add(b.gap), min(2*b.gap, turnMax)
	}
	return wait, b.back
}

// open reports whether allow would refuse now.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0 && (b.probing || time.Now().Before(b.until))
}

// An outcome is what a try told about the service.
type outcome int

const (
	unknown  outcome = iota // nothing: the caller gave up first, or it was not asked
	answered                // with whatever
	silence
)

// done ends a try that allow let through; err is for the message.
func (b *breaker) done(probe bool, o outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch o {
	case answered:
		b.silent, b.pause, b.last = 0, 0, nil
		if b.back != nil {
			close(b.back)
			b.back = nil
		}
	case silence:
		if b.silent == 0 {
			b.first = time.Now()
		}
		b.silent, b.last = b.silent+1, err
		slow := b.silent > 1 && time.Since(b.first) >= breakerWindow
		// Tries that began before the breaker opened must not prolong the pause.
		if probe || b.pause == 0 && (b.silent >= breakerTries || slow) {
			if b.back == nil {
				b.back, b.gap, b.next = make(chan struct{}), 2*turnMin, time.Now().Add(turnMin)
			}
			b.pause = min(max(2*b.pause, breakerMin), breakerMax)
			b.until = time.Now().Add(b.pause)
		}
	case unknown:
	}
}
