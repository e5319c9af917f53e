// SPDX-License-Identifier: Apache-2.0

// Package sched decides what may be sent to a service, and when: what a reader waits
// for goes first, transfers in the background use what is left, up to an adaptive
// limit; nothing in the background is sent before a time that the service named; and a
// service that does not answer is left alone.
//
//	        Ask(priority)                          Admit
//	caller ───────────────► queue ──► slot ready ──────────► breaker ──► request
//	                          ▲                                 ▲          │
//	     adaptive limit ──────┤ background                      └── Report │ an answer, or none
//	     Retry-After ─────────┤ background; few demanded                   │
//	     rest ────────────────┤ background                    Complained ──┤ 429
//	     Total of all ────────┘ background                        Failed ──┤ nothing came
//	                                                            Received ──┘ bytes
//
// Whoever has something to send asks the service's [Scheduler] for a [Slot], sends
// when the slot is ready, and tells the slot how the transfer goes on. The package
// knows neither HTTP nor images, and makes no request of its own.
//
// Locks, each of which is the last one taken, but for that of a Total below that of a
// Scheduler:
//
//	Scheduler.mu   the queue and what is under way
//	Total.mu       how much of all services is under way
//	breaker.mu     whether the service answers
//	Latency.mu     how soon
//	Quota.mu       until when it wants no questions of one kind
package sched

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultSlots is how many requests to one service may be under way. Transfers,
	// whose bodies stay open for as long as somebody reads them, leave a quarter of
	// them to questions: a listing need not wait for a download.
	DefaultSlots = 32
	// Reserved is how many slots are for demanded transfers only. A service that
	// complains gets so many demanded ones at most.
	Reserved = 4
	// TotalSlots is how many transfers to all services may be under way before those
	// in the background wait for each other.
	TotalSlots = 64
	// A transfer in the background holds still for a demanded one for so long before it
	// reads on: it slows down but never stops. On a slow line it is longer, so that all
	// of them together have no more than one of yieldShare bytes.
	yieldPause, yieldMost = 50 * time.Millisecond, 2 * time.Second
	yieldShare            = 8
	// restMin and restMax are how long nothing in the background begins after a failure.
	restMin, restMax = time.Second, 30 * time.Second
)

// A Priority says what a slot is for.
type Priority int

// The priorities, the first one first.
const (
	Question   Priority = iota // a request with a short answer
	Demanded                   // a transfer that a reader waits for
	Transfer                   // one that is neither demanded nor in the background: an upload, say
	Background                 // a transfer that nobody waits for, as yet
	priorities
)

// A Total is the number of transfers of several schedulers that are under way. The zero
// value is ready.
type Total struct {
	mu      sync.Mutex // guards the fields below
	busy    int
	members []*Scheduler
}

func (t *Total) full() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.busy >= TotalSlots
}

// add counts n transfers more or fewer. It returns the schedulers that may go on now.
func (t *Total) add(n int) (others []*Scheduler) {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy += n
	if n < 0 && t.busy == TotalSlots-1 {
		return slices.Clone(t.members)
	}
	return nil
}

// A Scheduler gives out the slots of one service, shared by all that is sent to it.
// Demanded transfers go before others. Those in the background use what is left, up to
// the adaptive limit, and at least one slot, so that neither waits for ever. For
// concurrent use.
type Scheduler struct {
	Latency Latency
	Ranges  Ranges

	slots, transfers, reserved int // how many there may be; see DefaultSlots, Reserved

	breaker breaker
	// quiet is closed when no demanded body comes in any more; nil while none does.
	quiet atomic.Pointer[chan struct{}]

	mu        sync.Mutex // guards the fields below, and those of slots
	total     *Total
	busy      [priorities]int // slots given out
	bodies    int             // that come in
	first     int             // of them, those that were asked for as demanded
	ending    int             // slots given out whose body is nearly over
	surplus   int             // slots given out whose transfer was told to end
	lone      *Slot           // whose body comes in while no other is in its way; nil if there is none
	loneSince time.Time
	loneBytes int64
	queue     []*Slot // in the order of asking
	limit     limit
	until     time.Time // nothing in the background before
	rest      time.Time // likewise, as one came to nothing; demanded ones go on
}

// New returns the scheduler of a service that may have so many requests under way.
func New(slots int) *Scheduler {
	s := &Scheduler{slots: slots, transfers: slots}
	if slots > 1 {
		s.transfers -= max(1, slots/4)
	}
	s.reserved = min(Reserved, s.transfers/6)
	return s
}

// Join counts the transfers of s in t from now on. Another call does nothing.
func (s *Scheduler) Join(t *Total) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total != nil {
		return
	}
	s.total = t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = append(t.members, s)
}

// A Slot is the right to one request, or the wait for it. It ends with Release.
type Slot struct {
	from     *Scheduler
	ready    chan struct{} // closed when it is given out
	priority Priority
	total    *Total        // that it is counted in
	given    bool          // it is given out
	body     bool          // its body comes in
	first    bool          // it was asked for as demanded, and its body comes in
	ending   bool          // its body is nearly over
	surplus  bool          // its transfer was told to end
	last     int64         // bytes that came in at the last read
	later    bool          // it was made in the background
	promoted chan struct{} // closed when it is promoted
}

// Ask queues for a slot: Ready tells when it is given out. Release gives it back, or
// the place in the queue.
func (s *Scheduler) Ask(p Priority) *Slot {
	slot := &Slot{from: s, ready: make(chan struct{}), promoted: make(chan struct{}), priority: p}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, slot)
	s.grant()
	return slot
}

// Wait returns when the slot is ready. If ctx ends first the slot is released.
// Errors: the cause of ctx.
func (t *Slot) Wait(ctx context.Context) error {
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
		t.Release()
		return context.Cause(ctx)
	}
}

// Ready is closed when the slot is given out.
func (t *Slot) Ready() <-chan struct{} { return t.ready }

// Of reports whether the slot is one of s.
func (t *Slot) Of(s *Scheduler) bool { return t.from == s }

// Release gives the slot back, or the place in the queue. A second Release does
// nothing.
func (t *Slot) Release() {
	for _, other := range t.release() {
		other.wake()
	}
}

func (t *Slot) release() (others []*Scheduler) {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.given {
		s.queue = slices.DeleteFunc(s.queue, func(q *Slot) bool { return q == t })
		return nil
	}
	s.bodyEnds(t)
	if t.ending {
		s.ending--
	}
	t.given, t.ending = false, false
	s.busy[t.priority]--
	others = t.total.add(-1)
	s.grant()
	return others
}

// Promote makes a transfer in the background a demanded one: a reader waits for it now.
func (t *Slot) Promote() {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.priority == Background {
		close(t.promoted)
		t.later = true
		t.become(Demanded)
	}
}

// Demote makes a demanded transfer one in the background: the reader has what it wanted.
func (t *Slot) Demote() {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.priority == Demanded {
		t.promoted = make(chan struct{})
		t.become(Background)
		s.yielded(t)
	}
}

// become changes the priority. Call with mu held.
func (t *Slot) become(p Priority) {
	s := t.from
	if t.given {
		s.busy[t.priority]--
		s.busy[p]++
	}
	t.priority = p
	s.grant()
}

// grant gives out what is free, by priority, each in turn. Call with mu held.
func (s *Scheduler) grant() {
	for p := Priority(0); p < priorities && len(s.queue) > 0; p++ {
		s.queue = slices.DeleteFunc(s.queue, func(t *Slot) bool {
			if t.priority != p || !s.fits(p) {
				return false
			}
			s.busy[p]++
			if p == Demanded || p == Background {
				t.total = s.total
				t.total.add(1)
			}
			t.given = true
			close(t.ready)
			return true
		})
	}
	s.limit.wanted = s.limit.wanted || len(s.queue) > 0
}

// fits reports whether one more slot may be given out. Call with mu held.
func (s *Scheduler) fits(p Priority) bool {
	demanded, background := s.busy[Demanded], s.busy[Background]
	transfers := demanded + background + s.busy[Transfer]
	held := time.Now().Before(s.until)
	switch {
	case transfers+s.busy[Question] >= s.slots:
		return false
	case p == Question:
		return true
	case transfers >= s.transfers:
		return false
	case p == Transfer:
		return true
	case p == Demanded && held:
		return demanded < Reserved
	case p == Demanded:
		return demanded < max(s.transfers-1, 1) // one is for the background
	case held || time.Now().Before(s.rest):
		return false
	case background == 0:
		return true
	}
	return demanded+background-s.ending < s.limit.now() && transfers < s.transfers-s.reserved && !s.total.full()
}

// Complained notes that the service asked for fewer requests, and for none in the
// background for so long.
func (s *Scheduler) Complained(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.halve(time.Now())
	if until := time.Now().Add(wait); wait > 0 && until.After(s.until) {
		s.until = until
		time.AfterFunc(wait, s.wake)
	}
}

func (s *Scheduler) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grant()
}

// A Pass lets a request through to a service that may not answer.
type Pass struct {
	breaker *breaker
	probe   atomic.Bool // until the outcome is reported
}

// Admit reports whether a request may be made now. What somebody waits for is admitted
// when it is its turn. After a nil error Report must be called. Errors: *Refusal.
func (s *Scheduler) Admit(ctx context.Context, p Priority) (*Pass, error) {
	if p == Demanded {
		return &Pass{breaker: &s.breaker}, s.breaker.turn(ctx)
	}
	probe, err := s.breaker.allow()
	pass := &Pass{breaker: &s.breaker}
	pass.probe.Store(probe)
	return pass, err
}

// Probe reports whether the request is the one that finds out whether a service that did
// not answer is back, and that is not known yet.
func (p *Pass) Probe() bool { return p.probe.Load() }

// Report says how the request went; err is for the message of a later Refusal. It may be
// called again, from any goroutine.
func (p *Pass) Report(o Outcome, err error) { p.breaker.done(p.probe.Swap(false), o, err) }

// Silent reports whether Admit would refuse now what nobody waits for.
func (s *Scheduler) Silent() bool { return s.breaker.open() }

// Idle reports whether no slot is given out.
func (s *Scheduler) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy == [priorities]int{}
}

// Stalled notes that a transfer came to nothing because the service took too long.
func (s *Scheduler) Stalled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.halve(time.Now())
}

// Failed notes that transfers in the background came to nothing so often in a row: none
// begins for a second, twice as long after each, at most half a minute; on average, as
// what fails together must not come back together.
func (s *Scheduler) Failed(row int) {
	wait := rand.N(2 * min(restMin<<min(row-1, 10), restMax))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = time.Now().Add(wait)
	time.AfterFunc(wait, s.wake)
}

// WantAll notes that somebody reads a whole image: the limit goes to its most as soon as
// the line is known to carry that.
func (s *Scheduler) WantAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.most(time.Now())
}

// Received counts n bytes that came in.
func (t *Slot) Received(n int64) {
	s, now := t.from, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.last = n
	if t == s.lone {
		s.loneBytes += n
		s.limit.alone(s.loneBytes, now.Sub(s.loneSince))
	}
	if s.limit.note(n, now) {
		s.grant()
	}
}

// Ending notes that the rest of the body comes in while a request travels: the next
// request may be made now, so that it has its first byte when this one has its last.
func (t *Slot) Ending() {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.given && !t.ending {
		t.ending = true
		s.ending++
		s.grant()
	}
}

// Rate returns how many bytes a second came in, last; 0 if that is not known.
func (s *Scheduler) Rate() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit.recent(time.Now())
}

// Surplus reports whether the transfer is better ended before its time, as more are under
// way in the background than fill the line.
func (t *Slot) Surplus() bool {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.priority == Background && !t.surplus && s.busy[Background]-s.surplus > s.limit.now()+s.ending {
		t.surplus = true
		s.surplus++
	}
	return t.surplus
}

// Answered notes that the body comes in. Those in the background yield to that of a
// demanded transfer; before its first byte they would yield to nothing.
func (t *Slot) Answered() {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.body {
		return
	}
	t.body = true
	s.bodies++
	s.limit.trip = s.Latency.Usual()
	if t.first = t.priority == Demanded && !t.later; t.first {
		if s.first++; s.first == 1 {
			quiet := make(chan struct{})
			s.quiet.Store(&quiet)
		}
	}
	switch {
	case s.bodies == 1, t.first && s.first == 1: // others yield
		s.lone, s.loneSince, s.loneBytes = t, time.Now(), 0
	case s.lone != nil && (t.first || !s.lone.first):
		s.lone = nil
	}
}

// bodyEnds is the end of Answered, if that was called. Call with mu held.
func (s *Scheduler) bodyEnds(t *Slot) {
	if t.body {
		t.body = false
		s.bodies--
	}
	if s.lone == t {
		s.lone = nil
	}
	if t.surplus {
		t.surplus = false
		s.surplus--
	}
	s.yielded(t)
}

// yielded lets others go on that t had held back, if it did. Call with mu held.
func (s *Scheduler) yielded(t *Slot) {
	if !t.first {
		return
	}
	t.first = false
	if s.lone == t {
		s.lone = nil
	}
	if s.first--; s.first == 0 {
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
	pause, promoted := t.pause()
	if pause == 0 {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-*quiet:
	case <-promoted:
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// pause is how long to yield, unless it is promoted; 0 if it does not yield.
func (t *Slot) pause() (long time.Duration, promoted <-chan struct{}) {
	s := t.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.priority == Demanded {
		return 0, nil
	}
	s.limit.held = true
	share := s.limit.recent(time.Now()) / yieldShare / float64(max(s.busy[Background], 1)) // bytes a second
	wait := yieldPause
	if share > 0 {
		wait = time.Duration(float64(t.last) / share * float64(time.Second))
	}
	return min(max(wait, yieldPause), yieldMost), t.promoted
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
