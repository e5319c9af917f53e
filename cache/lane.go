// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	laneSlots   = 16 // requests of one client under way; below what the client itself allows
	laneReserve = 4  // of them only for demand
	// yieldPause is how long background filling holds still for a demanded read
	// before it takes one more buffer all the same: it slows down but never stops.
	yieldPause = 50 * time.Millisecond
)

// A lane is the way to one client, shared by all blobs that come from it.
// Demanded ranges go first; background ones use what is left, and at least one
// slot always, so that neither waits for ever.
type lane struct {
	// wholeOnly: the service ignores ranges, as far as it was seen. Blobs are then
	// fetched in one stream from their start without asking again. A service that
	// gave a range (ranged) may do so for some of its images only.
	wholeOnly, ranged atomic.Bool

	mu     sync.Mutex    // guards the fields below and those of tickets
	busy   int           // tickets that hold a slot
	urgent int           // of them, the urgent ones
	queue  []*ticket     // in the order of asking
	quiet  chan struct{} // closed when no urgent ticket is left; nil while there is none
}

func (l *lane) noRanges() { l.wholeOnly.Store(!l.ranged.Load()) }

// A ticket asks for one slot of a lane.
type ticket struct {
	urgent  bool
	granted bool
	ready   chan struct{} // closed when granted
}

func newTicket(urgent bool) *ticket {
	return &ticket{urgent: urgent, ready: make(chan struct{})}
}

// enter waits for t's turn. After a nil error, leave must be called.
// Errors: ctx's.
func (l *lane) enter(ctx context.Context, t *ticket) error {
	l.mu.Lock()
	l.queue = append(l.queue, t)
	l.grant()
	l.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.granted {
		l.release(t)
	} else {
		l.queue = slices.DeleteFunc(l.queue, func(q *ticket) bool { return q == t })
	}
	return ctx.Err()
}

// leave gives t's slot back. t can enter again.
func (l *lane) leave(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release(t)
}

func (l *lane) release(t *ticket) {
	t.granted, t.ready = false, make(chan struct{})
	l.busy--
	if t.urgent {
		l.calm()
	}
	l.grant()
}

// promote makes t urgent: a reader waits for what it fetches.
func (l *lane) promote(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.urgent {
		return
	}
	t.urgent = true
	if t.granted {
		l.hurry()
	}
	l.grant()
}

// grant hands out what is free: to urgent tickets first, each kind in turn.
func (l *lane) grant() {
	for _, urgent := range []bool{true, false} {
		l.queue = slices.DeleteFunc(l.queue, func(t *ticket) bool {
			if t.urgent != urgent || !l.fits(urgent) {
				return false
			}
			l.busy++
			t.granted = true
			close(t.ready)
			if urgent {
				l.hurry()
			}
			return true
		})
	}
}

func (l *lane) fits(urgent bool) bool {
	background := l.busy - l.urgent
	switch {
	case urgent:
		return l.urgent < laneSlots-1 && l.busy < laneSlots
	case background == 0:
		return l.busy < laneSlots
	}
	return l.busy < laneSlots-laneReserve
}

func (l *lane) hurry() {
	if l.urgent++; l.urgent == 1 {
		l.quiet = make(chan struct{})
	}
}

func (l *lane) calm() {
	if l.urgent--; l.urgent == 0 {
		close(l.quiet)
		l.quiet = nil
	}
}

// yield holds a background transfer back while demanded ones are under way, and
// reports whether it did.
func (l *lane) yield(ctx context.Context, t *ticket) bool {
	l.mu.Lock()
	quiet, urgent := l.quiet, t.urgent
	l.mu.Unlock()
	if quiet == nil || urgent {
		return false
	}
	pause := time.NewTimer(yieldPause)
	defer pause.Stop()
	select {
	case <-quiet:
	case <-pause.C:
	case <-ctx.Done():
	}
	return true
}
