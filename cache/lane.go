// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const (
	laneSlots   = 24 // requests of one client under way: as many bodies as it allows itself
	laneReserve = 4  // of them only for demand, and all that demand gets from a service that complains
	// trafficSlots is how many requests all lanes have under way before background
	// ones wait for each other.
	trafficSlots = 64
	// yieldPause is how long background filling holds still for a demanded read
	// before it takes one more buffer all the same: it slows down but never stops.
	yieldPause = 50 * time.Millisecond
)

// A traffic is all lanes of a cache.
type traffic struct {
	mu    sync.Mutex // guards the fields below, and those of lanes and tickets
	busy  int
	lanes map[*backends.Client]*lane
}

// lane returns the lane to a client.
func (tr *traffic) lane(client *backends.Client) *lane {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	l := tr.lanes[client]
	if l == nil {
		l = newLane(tr, client.Throttled)
		if tr.lanes == nil {
			tr.lanes = map[*backends.Client]*lane{}
		}
		tr.lanes[client] = l
	}
	return l
}

// A lane is the way to one client, shared by all blobs that come from it.
// Demanded ranges go first; background ones use what is left, up to the pace that
// the service was found to like, and at least one slot, so that neither waits
// for ever.
type lane struct {
	ranges atomic.Int32 // one of rangesUnseen, rangesIgnored, rangesGiven

	traffic   *traffic
	throttled func() (times int, until time.Time) // complaints of the service, see backends.Client.Throttled
	answers   answers

	// quiet is closed when no demanded body comes in any more; nil while none does.
	quiet atomic.Pointer[chan struct{}]

	// Guarded by traffic.mu.
	busy       int       // tickets that hold a slot
	urgent     int       // of them, the urgent ones
	bodies     int       // of them, those whose body comes in
	ending     int       // tickets, urgent or not, whose body has nearly come in
	queue      []*ticket // in the order of asking
	pace       pace
	complaints int       // that were taken into account
	until      time.Time // nothing in the background before
}

func newLane(tr *traffic, throttled func() (int, time.Time)) *lane {
	return &lane{traffic: tr, throttled: throttled}
}

// What was seen of a service's ranges. Where it ignored one, blobs are fetched in
// one stream from their start without asking again, until it gives a range after
// all; one that did so once may ignore them for some of its images only.
const (
	rangesUnseen int32 = iota
	rangesIgnored
	rangesGiven
)

func (l *lane) ignoresRanges()  { l.ranges.CompareAndSwap(rangesUnseen, rangesIgnored) }
func (l *lane) givesRanges()    { l.ranges.Store(rangesGiven) }
func (l *lane) wholeOnly() bool { return l.ranges.Load() == rangesIgnored }

// A ticket asks for one slot of a lane.
type ticket struct {
	urgent  bool
	body    bool // it is urgent, and its body comes in
	ending  bool // its body has nearly come in
	granted bool
	ready   chan struct{} // closed when granted
}

func newTicket(urgent bool) *ticket {
	return &ticket{urgent: urgent, ready: make(chan struct{})}
}

// enter waits for t's turn. After a nil error, leave must be called.
// Errors: ctx's.
func (l *lane) enter(ctx context.Context, t *ticket) error {
	l.queueUp(t)
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
		l.leave(t)
		return ctx.Err()
	}
}

// queueUp asks for a slot: t.ready tells when it is there. Then, or to give up,
// leave must be called.
func (l *lane) queueUp(t *ticket) {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	l.queue = append(l.queue, t)
	l.grant()
}

// leave gives t's slot back, or the place in the queue. t is used up.
func (l *lane) leave(t *ticket) {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if !t.granted {
		l.queue = slices.DeleteFunc(l.queue, func(q *ticket) bool { return q == t })
		return
	}
	l.calm(t)
	if t.ending {
		l.ending--
	}
	t.granted, t.ending = false, false
	l.busy--
	if t.urgent {
		l.urgent--
	}
	l.traffic.busy--
	l.grant()
	if l.traffic.busy == trafficSlots-1 {
		for _, other := range l.traffic.lanes {
			other.grant()
		}
	}
}

// promote makes t urgent: a reader waits for what it fetches.
func (l *lane) promote(t *ticket) {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if t.urgent {
		return
	}
	t.urgent = true
	if t.granted {
		l.urgent++
	}
	l.grant()
}

// grant hands out what is free: to urgent tickets first, each kind in turn.
func (l *lane) grant() {
	if len(l.queue) == 0 {
		return
	}
	l.listen()
	for _, urgent := range []bool{true, false} {
		l.queue = slices.DeleteFunc(l.queue, func(t *ticket) bool {
			if t.urgent != urgent || !l.fits(urgent) {
				return false
			}
			l.busy++
			l.traffic.busy++
			t.granted = true
			close(t.ready)
			if urgent {
				l.urgent++
			}
			return true
		})
	}
	l.pace.waiting = l.pace.waiting || len(l.queue) > 0
}

func (l *lane) fits(urgent bool) bool {
	held := time.Now().Before(l.until)
	switch {
	case urgent && held:
		return l.urgent < laneReserve
	case urgent:
		return l.urgent < laneSlots-1 && l.busy < laneSlots
	case held:
		return false
	case l.busy == l.urgent:
		return l.busy < laneSlots
	}
	return l.busy-l.ending < l.pace.now() && l.busy < laneSlots-laneReserve && l.traffic.busy < trafficSlots
}

// listen takes into account what the service complained of meanwhile. What must
// not be sent before some time is granted then.
func (l *lane) listen() {
	times, until := l.throttled()
	if times == l.complaints {
		return
	}
	l.complaints = times
	l.pace.slow(time.Now())
	if wait := time.Until(until); wait > 0 && until.After(l.until) {
		l.until = until
		time.AfterFunc(wait, l.wake)
	}
}

// slow is for a request that came to nothing because the service took too long.
func (l *lane) slow() {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	l.pace.slow(time.Now())
}

func (l *lane) wake() {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	l.grant()
}

// run is called when somebody reads a whole image.
func (l *lane) run() {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if l.pace.run(time.Now()) {
		l.grant()
	}
}

// received counts bytes that came in.
func (l *lane) received(n int64) {
	now := time.Now()
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if l.pace.note(n, now) {
		l.grant()
	}
}

// end notes that the rest of t's body comes in while a request travels: the next
// one can be made now, so that it has its first byte when this one has its last.
func (l *lane) end(t *ticket) {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if t.granted && !t.ending {
		t.ending = true
		l.ending++
		l.grant()
	}
}

// hurry notes that the body of a demanded request comes in: background ones
// yield to it. Until its first byte they would do so for nothing.
func (l *lane) hurry(t *ticket) {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	if t.body {
		return
	}
	t.body = true
	if l.bodies++; l.bodies == 1 {
		quiet := make(chan struct{})
		l.quiet.Store(&quiet)
	}
}

// calm is the end of hurry, if that was called. Call with traffic.mu held.
func (l *lane) calm(t *ticket) {
	if !t.body {
		return
	}
	t.body = false
	if l.bodies--; l.bodies == 0 {
		close(*l.quiet.Swap(nil))
	}
}

// yield holds a background transfer back while demanded bodies come in, and
// reports whether it did.
func (l *lane) yield(ctx context.Context, t *ticket) bool {
	quiet := l.quiet.Load()
	if quiet == nil {
		return false
	}
	l.traffic.mu.Lock()
	urgent := t.urgent
	l.traffic.mu.Unlock()
	if urgent {
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
