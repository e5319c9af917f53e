// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// SilentTries is how many tries in a row without an answer open the breaker, or two
	// that are silentWindow apart: time-outs are slow to count.
	SilentTries  = 5
	silentWindow = 10 * time.Second
	// BreakerMin is how long the breaker stays open at first; that is doubled after each
	// probe in vain, up to breakerMax.
	BreakerMin = 5 * time.Second
	breakerMax = 30 * time.Second
	// While it is open, tries that somebody waits for are turnMin apart; that is doubled
	// after each, up to turnMax.
	turnMin = 100 * time.Millisecond
	turnMax = 2 * time.Second
)

// A Refusal says why a request is not made: the last ones had no answer.
type Refusal struct {
	Silent int           // requests in a row without one
	Probe  time.Duration // until the service is asked again; 0 while it is being asked
	Waited bool          // somebody waited for a turn until there was no time left
	Last   error         // of the last request
}

func (e *Refusal) Error() string {
	next := ", the next is on its way"
	switch {
	case e.Waited:
		next = ""
	case e.Probe > 0:
		next = fmt.Sprintf(", the next in %v", max(e.Probe.Round(time.Second), time.Second))
	}
	return fmt.Sprintf("no answer to the last %d requests%s (%v)", e.Silent, next, e.Last)
}

// A breaker keeps requests from a service that does not answer. The zero breaker is
// closed.
//
//	         SilentTries, or two in silentWindow, without an answer
//	closed ──────────────────────────────────────────────────────────── open ──┐
//	   └──────────────── an answer of any kind, to any try ────────────────┘   │ no answer to
//	                                                                       └───┘ the probe: twice the pause
//
// While it is open:
//
//	what somebody waits for   takes turns: one try after each gap
//	anything else             fails at once; one probe after each pause
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
// error, done must be called. Errors: *Refusal.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return false, nil
	}
	if wait := time.Until(b.until); wait > 0 || b.probing {
		if b.probing {
			wait = 0
		}
		return false, &Refusal{Silent: b.silent, Probe: wait, Last: b.last}
	}
	b.probing = true
	return true, nil
}

// turn waits until it is time for a try that somebody waits for. After a nil error,
// done must be called. Errors: *Refusal when ctx ends first.
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
			return &Refusal{Silent: b.silent, Waited: true, Last: b.last}
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

// An Outcome is what a try told about the service.
type Outcome int

// The outcomes.
const (
	Unknown  Outcome = iota // nothing: the caller gave up first, or it was not asked
	Answered                // with whatever
	Silence
)

// done ends a try that allow let through; err is for the message.
func (b *breaker) done(probe bool, o Outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch o {
	case Answered:
		b.silent, b.pause, b.last = 0, 0, nil
		if b.back != nil {
			close(b.back)
			b.back = nil
		}
	case Silence:
		if b.silent == 0 {
			b.first = time.Now()
		}
		b.silent, b.last = b.silent+1, err
		slow := b.silent > 1 && time.Since(b.first) >= silentWindow
		// Tries that began before the breaker opened must not prolong the pause.
		if probe || b.pause == 0 && (b.silent >= SilentTries || slow) {
			if b.back == nil {
				b.back, b.gap, b.next = make(chan struct{}), 2*turnMin, time.Now().Add(turnMin)
			}
			b.pause = min(max(2*b.pause, BreakerMin), breakerMax)
			b.until = time.Now().Add(b.pause)
		}
	case Unknown:
	}
}
