// SPDX-License-Identifier: Apache-2.0

// Package sched decides what may be sent to a service, and when: what a reader waits
// for goes first, transfers in the background use what is left, up to an adaptive
// limit, and nothing in the background is sent before a time that the service named.
//
// Whoever has something to send asks the service's [Scheduler] for a [Slot], sends
// when the slot is ready, and tells the slot how the transfer goes on. The package
// knows neither HTTP nor images, and makes no request of its own.
//
// One lock, that of the [Total], guards all schedulers of it and their slots; that of
// a [Latency] is taken alone.
package sched

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Slots is how many bodies of one service may be under way.
	Slots = 24
	// Reserved is how many of them are for demanded transfers only. A service that
	// complains gets so many demanded ones at most.
	Reserved = 4
	// TotalSlots is how many transfers to all services may be under way before those
	// in the background wait for each other.
	TotalSlots = 64
	// yieldPause is how long a transfer in the background holds still for a demanded
	// one before it takes one more buffer: it slows down but never stops.
	yieldPause = 50 * time.Millisecond
)

// A Priority says who waits for a transfer.
type Priority int

// The priorities.
const (
	Background Priority = iota // nobody, as yet
	Demanded                   // a reader
)

// A Total is what all schedulers of one program share: the number of transfers under
// way. The zero value is ready.
type Total struct {
	mu         sync.Mutex // guards the fields below, and those of schedulers and slots
	busy       int
	schedulers []*Scheduler
}

// New returns the scheduler of one more service. complaints returns how often the
// service asked for fewer requests so far, and until when it wants none.
func (t *Total) New(complaints func() (times int, until time.Time)) *Scheduler {
	s := &Scheduler{total: t, throttled: complaints}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.schedulers = append(t.schedulers, s)
	return s
}

// A Scheduler gives out the slots of one service, shared by all that is fetched from
// it. Demanded transfers go first. Those in the background use what is left, up to the
// adaptive limit, and at least one slot, so that neither waits for ever. For
// concurrent use.
type Scheduler struct {
	Latency Latency
	Ranges  Ranges

	total     *Total
	throttled func() (times int, until time.Time)

	// quiet is closed when no demanded body comes in any more; nil while none does.
	quiet atomic.Pointer[chan struct{}]

	// Guarded by total.mu.
	busy       int     // slots given out
	demanded   int     // of them, the demanded ones
	bodies     int     // of them, those whose body comes in
	ending     int     // slots given out whose body is nearly over
	queue      []*Slot // in the order of asking
	limit      limit
	complaints int       // that were taken into account
	until      time.Time // nothing in the background before
}

// A Slot is the right to one transfer, or the wait for it. It ends with Release.
type Slot struct {
	from     *Scheduler
	ready    chan struct{} // closed when it is given out
	priority Priority
	given    bool // it is given out
	body     bool // it is demanded, and its body comes in
	ending   bool // its body is nearly over
}

// Ask queues for a slot: Ready tells when it is given out. Release gives it back, or
// the place in the queue.
func (s *Scheduler) Ask(p Priority) *Slot {
	slot := &Slot{from: s, ready: make(chan struct{}), priority: p}
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	s.queue = append(s.queue, slot)
	s.grant()
	return slot
}

// Wait returns when the slot is ready. If ctx ends first the slot is released.
// Errors: ctx's.
func (t *Slot) Wait(ctx context.Context) error {
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
		t.Release()
		return ctx.Err()
	}
}

// Ready is closed when the slot is given out.
func (t *Slot) Ready() <-chan struct{} { return t.ready }

// Of reports whether the slot is one of s.
func (t *Slot) Of(s *Scheduler) bool { return t.from == s }

// Release gives the slot back, or the place in the queue. A second Release does
// nothing.
func (t *Slot) Release() {
	s := t.from
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if !t.given {
		s.queue = slices.DeleteFunc(s.queue, func(q *Slot) bool { return q == t })
		return
	}
	s.bodyEnds(t)
	if t.ending {
		s.ending--
	}
	t.given, t.ending = false, false
	s.busy--
	if t.priority == Demanded {
		s.demanded--
	}
	s.total.busy--
	s.grant()
	if s.total.busy == TotalSlots-1 {
		for _, other := range s.total.schedulers {
			other.grant()
		}
	}
}

// Promote makes the transfer a demanded one: a reader waits for it now.
func (t *Slot) Promote() {
	s := t.from
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if t.priority == Demanded {
		return
	}
	t.priority = Demanded
	if t.given {
		s.demanded++
	}
	s.grant()
}

// grant gives out what is free: to demanded transfers first, each kind in turn.
func (s *Scheduler) grant() {
	if len(s.queue) == 0 {
		return
	}
	s.listen()
	for _, p := range []Priority{Demanded, Background} {
		s.queue = slices.DeleteFunc(s.queue, func(t *Slot) bool {
			if t.priority != p || !s.fits(p) {
				return false
			}
			s.busy++
			s.total.busy++
			t.given = true
			close(t.ready)
			if p == Demanded {
				s.demanded++
			}
			return true
		})
	}
	s.limit.wanted = s.limit.wanted || len(s.queue) > 0
}

func (s *Scheduler) fits(p Priority) bool {
	held := time.Now().Before(s.until)
	switch {
	case p == Demanded && held:
		return s.demanded < Reserved
	case p == Demanded:
		return s.demanded < Slots-1 && s.busy < Slots
	case held:
		return false
	case s.busy == s.demanded:
		return s.busy < Slots
	}
	return s.busy-s.ending < s.limit.now() && s.busy < Slots-Reserved && s.total.busy < TotalSlots
}

// listen takes into account what the service complained of since it was last called.
// What must not be sent before some time is given out then.
func (s *Scheduler) listen() {
	times, until := s.throttled()
	if times == s.complaints {
		return
	}
	s.complaints = times
	s.limit.halve(time.Now())
	if wait := time.Until(until); wait > 0 && until.After(s.until) {
		s.until = until
		time.AfterFunc(wait, s.wake)
	}
}

func (s *Scheduler) wake() {
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	s.grant()
}

// Stalled notes that a transfer came to nothing because the service took too long.
func (s *Scheduler) Stalled() {
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	s.limit.halve(time.Now())
}

// WantAll notes that somebody reads a whole image: the limit goes to its most at once.
func (s *Scheduler) WantAll() {
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if s.limit.most(time.Now()) {
		s.grant()
	}
}

// Received counts n bytes that came in.
func (s *Scheduler) Received(n int64) {
	now := time.Now()
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if s.limit.note(n, now) {
		s.grant()
	}
}

// Ending notes that the rest of the body comes in while a request travels: the next
// request may be made now, so that it has its first byte when this one has its last.
func (t *Slot) Ending() {
	s := t.from
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if t.given && !t.ending {
		t.ending = true
		s.ending++
		s.grant()
	}
}

// Answered notes that the body of a demanded transfer comes in: those in the
// background yield to it. Before its first byte they would yield to nothing.
func (t *Slot) Answered() {
	s := t.from
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	if t.body {
		return
	}
	t.body = true
	if s.bodies++; s.bodies == 1 {
		quiet := make(chan struct{})
		s.quiet.Store(&quiet)
	}
}

// bodyEnds is the end of Answered, if that was called. Call with total.mu held.
func (s *Scheduler) bodyEnds(t *Slot) {
	if !t.body {
		return
	}
	t.body = false
	if s.bodies--; s.bodies == 0 {
		close(*s.quiet.Swap(nil))
	}
}

// Yield holds a transfer in the background back while demanded bodies come in, and
// reports whether it did.
func (t *Slot) Yield(ctx context.Context) bool {
	quiet := t.from.quiet.Load()
	if quiet == nil {
		return false
	}
	t.from.total.mu.Lock()
	demanded := t.priority == Demanded
	t.from.total.mu.Unlock()
	if demanded {
		return false
	}
	pause := time.NewTimer(yieldPause)
	defer pause.Stop()
	select {
	case <-*quiet:
	case <-pause.C:
	case <-ctx.Done():
	}
	return true
}

// Ranges is what was seen of a service's ranges. Where it ignored one, images are
// fetched in one stream from their start without asking again, until it gives a range
// after all; one that did so once may ignore them for some of its images only. The
// zero value has seen none. For concurrent use.
type Ranges struct{ seen atomic.Int32 }

const (
	rangesUnseen int32 = iota
	rangesIgnored
	rangesGiven
)

// Ignored notes that the service sent more than the range that it was asked for.
func (r *Ranges) Ignored() { r.seen.CompareAndSwap(rangesUnseen, rangesIgnored) }

// Given notes that the service sent a range.
func (r *Ranges) Given() { r.seen.Store(rangesGiven) }

// None reports whether the service is one that sends whole images only.
func (r *Ranges) None() bool { return r.seen.Load() == rangesIgnored }
