// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// granted counts the tickets that have a slot.
func granted(l *lane, tickets []*ticket) int {
	l.mu.Lock()
	defer l.mu.Unlock()
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

func TestLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var l lane
		background := enterAll(ctx, t, &l, 20, false)
		if n := granted(&l, background); n != laneSlots-laneReserve {
			t.Errorf("%d background slots, want %d", n, laneSlots-laneReserve)
		}
		demand := enterAll(ctx, t, &l, 20, true)
		if n := granted(&l, demand); n != laneReserve {
			t.Errorf("%d demanded slots beside them, want %d", n, laneReserve)
		}
		for range 10 {
			l.leave(firstGranted(&l, background))
		}
		if n := granted(&l, demand); n != laneSlots-2 {
			t.Errorf("%d demanded slots after some left, want %d", n, laneSlots-2)
		}
		l.leave(firstGranted(&l, background))
		l.leave(firstGranted(&l, background))
		if n := granted(&l, background); n != 1 {
			t.Errorf("%d background slots while readers wait, want 1", n)
		}
		waiting := background[19]
		l.promote(waiting)
		for range 8 {
			l.leave(firstGranted(&l, demand))
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
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range tickets {
		if t.granted {
			return t
		}
	}
	return nil
}

// Background transfers make way for demanded ones, but not for ever.
func TestLane_yield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l lane
		background, demand := newTicket(false), newTicket(true)
		if err := l.enter(t.Context(), background); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if l.yield(t.Context(), background) || time.Since(start) > 0 {
			t.Error("yielded to nobody")
		}
		if err := l.enter(t.Context(), demand); err != nil {
			t.Fatal(err)
		}
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
