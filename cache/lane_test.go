// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// granted counts the tickets that have a slot.
func granted(l *lane, tickets []*ticket) int {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	n := 0
	for _, t := range tickets {
		if t.granted {
			n++
		}
	}
	return n
}

func enterAll(ctx context.Context, t *testing.T, l *lane, n int, urgent bool) []*ticket {
	tickets := make([]*ticket, n)
	for i := range tickets {
		tickets[i] = newTicket(urgent)
		go func() {
			if err := l.enter(ctx, tickets[i]); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait()
	}
	return tickets
}

// testLane returns a lane to a service that never complains.
func testLane() *lane {
	return newLane(new(traffic), func() (int, time.Time) { return 0, time.Time{} })
}

func TestLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := testLane()
		background := enterAll(ctx, t, l, laneSlots, false)
		if n := granted(l, background); n != paceStart {
			t.Errorf("%d background slots at first, want %d", n, paceStart)
		}
		l.run()
		if n := granted(l, background); n != paceMax {
			t.Errorf("%d background slots for a whole image, want %d", n, paceMax)
		}
		for _, ticket := range background[:laneSlots-paceMax] {
			l.end(ticket)
		}
		if n := granted(l, background); n != laneSlots-laneReserve {
			t.Errorf("%d background slots when some bodies are near their end, want %d", n, laneSlots-laneReserve)
		}
		demand := enterAll(ctx, t, l, 20, true)
		if n := granted(l, demand); n != laneReserve {
			t.Errorf("%d demanded slots beside them, want %d", n, laneReserve)
		}
		for range 10 {
			l.leave(firstGranted(l, background))
		}
		if n := granted(l, demand); n != laneReserve+10 {
			t.Errorf("%d demanded slots after some left, want %d", n, laneReserve+10)
		}
		for range 9 {
			l.leave(firstGranted(l, background))
		}
		if n := granted(l, background); n != 1 {
			t.Errorf("%d background slots while readers wait, want 1", n)
		}
		waiting := background[laneSlots-1]
		l.promote(waiting)
		for range 8 {
			l.leave(firstGranted(l, demand))
		}
		if !waiting.granted || !waiting.urgent {
			t.Error("a promoted ticket did not get a slot")
		}
		cancel()
		synctest.Wait()
		if len(l.queue) != 0 {
			t.Errorf("%d cancelled tickets are still queued", len(l.queue))
		}
	})
}

func firstGranted(l *lane, tickets []*ticket) *ticket {
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	for _, t := range tickets {
		if t.granted {
			return t
		}
	}
	return nil
}

// Background transfers make way for demanded ones, but not for ever, and not
// before there is something to make way for.
func TestLane_yield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := testLane()
		background, demand := newTicket(false), newTicket(true)
		for _, ticket := range []*ticket{background, demand} {
			if err := l.enter(t.Context(), ticket); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if l.yield(t.Context(), background) || time.Since(start) > 0 {
			t.Error("yielded to a request that has no answer yet")
		}
		l.hurry(demand)
		if l.yield(t.Context(), demand) {
			t.Error("a demanded transfer yielded")
		}
		if !l.yield(t.Context(), background) || time.Since(start) != yieldPause {
			t.Errorf("yielded for %v, want %v", time.Since(start), yieldPause)
		}
		go func() {
			time.Sleep(yieldPause / 2)
			l.leave(demand)
		}()
		if !l.yield(t.Context(), background) || time.Since(start) != yieldPause*3/2 {
			t.Errorf("yielded until %v after the start, want %v", time.Since(start), yieldPause*3/2)
		}
		l.leave(background)
	})
}

// All lanes together make no more than so many requests in the background; each
// has one at least.
func TestTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tr := &traffic{lanes: map[*backends.Client]*lane{}}
		var lanes []*lane
		var tickets [][]*ticket
		total := 0
		for range 6 {
			l := newLane(tr, func() (int, time.Time) { return 0, time.Time{} })
			tr.lanes[new(backends.Client)] = l
			l.run()
			lanes, tickets = append(lanes, l), append(tickets, enterAll(ctx, t, l, 16, false))
			total += granted(l, tickets[len(tickets)-1])
		}
		if total != trafficSlots+2 || granted(lanes[5], tickets[5]) != 1 {
			t.Errorf("%d slots, %d of the last lane, want %d and 1", total, granted(lanes[5], tickets[5]), trafficSlots+2)
		}
		for range 4 {
			lanes[0].leave(firstGranted(lanes[0], tickets[0]))
		}
		if n := granted(lanes[4], tickets[4]) + granted(lanes[5], tickets[5]); n != 4 {
			t.Errorf("the last lanes have %d slots after the first gave back some, want 4", n)
		}
	})
}

// A service that complains is left alone for as long as it wants, and gets half
// as many requests after that.
func TestLane_throttled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		times, until := 0, time.Time{}
		l := newLane(new(traffic), func() (int, time.Time) { return times, until })
		l.run()
		first := enterAll(ctx, t, l, paceMax, false)
		times, until = 1, time.Now().Add(time.Minute)
		more := enterAll(ctx, t, l, paceMax, false)
		for _, ticket := range first {
			l.leave(ticket)
		}
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if n := granted(l, more); n != 0 {
			t.Errorf("%d requests while the service wants none", n)
		}
		demand := enterAll(ctx, t, l, 6, true)
		if n := granted(l, demand); n != laneReserve {
			t.Errorf("%d demanded requests meanwhile, want %d", n, laneReserve)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		l.run() // somebody reads a whole image: no reason to run again
		if n := granted(l, more) + granted(l, demand); n != paceMax/2 {
			t.Errorf("%d requests afterwards, want %d", n, paceMax/2)
		}
	})
}
