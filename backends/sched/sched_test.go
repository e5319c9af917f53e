// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// given counts the slots that are given out.
func given(slots []*Slot) int {
	n := 0
	for _, slot := range slots {
		if isGiven(slot) {
			n++
		}
	}
	return n
}

func isGiven(slot *Slot) bool {
	slot.from.mu.Lock()
	defer slot.from.mu.Unlock()
	return slot.given
}

// askAll asks for n slots, each of which is released when ctx ends before its turn.
func askAll(ctx context.Context, t *testing.T, s *Scheduler, n int, p Priority) []*Slot {
	slots := make([]*Slot, n)
	for i := range slots {
		slots[i] = s.Ask(p)
		go func() {
			if err := slots[i].Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait()
	}
	return slots
}

// transfers is how many of DefaultSlots are for transfers.
const transfers = DefaultSlots * 3 / 4

func TestScheduler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := New(DefaultSlots)
		background := askAll(ctx, t, s, transfers, Background)
		if n := given(background); n != limitStart {
			t.Errorf("%d background slots at first, want %d", n, limitStart)
		}
		s.WantAll()
		firstGiven(background).Received(leapSample)
		if n := given(background); n != LimitMax {
			t.Errorf("%d background slots for a whole image, want %d", n, LimitMax)
		}
		for _, slot := range background[:transfers-LimitMax] {
			slot.Ending()
		}
		if n := given(background); n != transfers-Reserved {
			t.Errorf("%d background slots when some bodies are near their end, want %d", n, transfers-Reserved)
		}
		demand := askAll(ctx, t, s, 20, Demanded)
		if n := given(demand); n != Reserved {
			t.Errorf("%d demanded slots beside them, want %d", n, Reserved)
		}
		for range 10 {
			firstGiven(background).Release()
		}
		if n := given(demand); n != Reserved+10 {
			t.Errorf("%d demanded slots after some left, want %d", n, Reserved+10)
		}
		for range 9 {
			firstGiven(background).Release()
		}
		if n := given(background); n != 1 {
			t.Errorf("%d background slots while readers wait, want 1", n)
		}
		waiting := background[transfers-1]
		waiting.Promote()
		for range 8 {
			firstGiven(demand).Release()
		}
		if !isGiven(waiting) || waiting.priority != Demanded {
			t.Error("a promoted transfer did not get a slot")
		}
		cancel()
		synctest.Wait()
		if len(s.queue) != 0 {
			t.Errorf("%d cancelled transfers are still queued", len(s.queue))
		}
	})
}

func firstGiven(slots []*Slot) *Slot {
	return slots[slices.IndexFunc(slots, isGiven)]
}

// Background transfers make way for demanded ones, but not for ever, and not
// before there is something to make way for.
func TestSlot_yield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(DefaultSlots)
		background, demand := s.Ask(Background), s.Ask(Demanded)
		for _, slot := range []*Slot{background, demand} {
			if err := slot.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if background.Yield(t.Context()) || time.Since(start) > 0 {
			t.Error("yielded to a request that has no answer yet")
		}
		demand.Answered()
		if demand.Yield(t.Context()) {
			t.Error("a demanded transfer yielded")
		}
		if !background.Yield(t.Context()) || time.Since(start) != yieldPause {
			t.Errorf("yielded for %v, want %v", time.Since(start), yieldPause)
		}
		go func() {
			time.Sleep(yieldPause / 2)
			demand.Release()
		}()
		if !background.Yield(t.Context()) || time.Since(start) != yieldPause*3/2 {
			t.Errorf("yielded until %v after the start, want %v", time.Since(start), yieldPause*3/2)
		}
		background.Release()
	})
}

// On a slow line those in the background hold still for longer, until a reader waits for
// them too; what nobody waits for any more is one of them.
func TestSlot_slowLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(DefaultSlots)
		background, demand := s.Ask(Background), s.Ask(Demanded)
		background.Answered()
		for range 20 { // 100 kB a second
			time.Sleep(100 * time.Millisecond)
			background.Received(10e3)
		}
		demand.Answered()
		held := func() time.Duration {
			start := time.Now()
			background.Yield(t.Context())
			return time.Since(start)
		}
		if took, want := held(), yieldShare*100*time.Millisecond; took < want*9/10 || took > want*11/10 {
			t.Errorf("yielded for %v, want what it takes to get as much %d times, %v", took, yieldShare, want)
		}
		go func() {
			time.Sleep(time.Millisecond)
			background.Promote()
		}()
		if took := held(); took != time.Millisecond {
			t.Errorf("yielded for %v after a reader began to wait", took)
		}
		background.Demote()
		demand.Demote()
		if took := held(); took > 0 {
			t.Errorf("yielded for %v to what nobody waits for", took)
		}
	})
}

// What is too much beside others is told so, once.
func TestSlot_surplus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(DefaultSlots)
		slots := askAll(t.Context(), t, s, limitStart, Background)
		s.Complained(0) // half as many
		surplus := 0
		for _, slot := range slots {
			if slot.Surplus() {
				surplus++
			}
		}
		if want := limitStart / 2; surplus != want {
			t.Errorf("%d of %d transfers are too many, want %d", surplus, limitStart, want)
		}
	})
}

// All services together get no more than so many requests in the background; each
// has one at least.
func TestTotal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		all := new(Total)
		var slots [][]*Slot
		total := 0
		for range 6 {
			s := New(DefaultSlots)
			s.Join(all)
			slots = append(slots, askAll(ctx, t, s, 16, Background))
			s.WantAll()
			slots[len(slots)-1][0].Received(leapSample)
			total += given(slots[len(slots)-1])
		}
		if total != TotalSlots+2 || given(slots[5]) != 1 {
			t.Errorf("%d slots, %d of the last service, want %d and 1", total, given(slots[5]), TotalSlots+2)
		}
		for range 4 {
			firstGiven(slots[0]).Release()
		}
		if n := given(slots[4]) + given(slots[5]); n != 4 {
			t.Errorf("the last services have %d slots after the first gave back some, want 4", n)
		}
	})
}

// A service that complains is left alone for as long as it wants, and gets half
// as many requests after that.
func TestScheduler_throttled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := New(DefaultSlots)
		first := askAll(ctx, t, s, LimitMax, Background)
		s.WantAll()
		first[0].Received(leapSample)
		s.Complained(time.Minute)
		more := askAll(ctx, t, s, LimitMax, Background)
		for _, slot := range first {
			slot.Release()
		}
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if n := given(more); n != 0 {
			t.Errorf("%d requests while the service wants none", n)
		}
		demand := askAll(ctx, t, s, 6, Demanded)
		if n := given(demand); n != Reserved {
			t.Errorf("%d demanded requests meanwhile, want %d", n, Reserved)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		s.WantAll() // somebody reads a whole image: no reason to run again
		firstGiven(more).Received(leapSample)
		if n := given(more) + given(demand); n != LimitMax/2 {
			t.Errorf("%d requests afterwards, want %d", n, LimitMax/2)
		}
	})
}

// A service all of whose requests get stuck is not asked twice for each.
func TestLatency(t *testing.T) {
	t.Parallel()
	var l Latency
	hedged := 0
	for range 80 {
		l.Note(time.Second)
		if l.Hedge() {
			hedged++
		}
	}
	if want := 80/hedgeShare + 1; hedged > want {
		t.Errorf("%d of 80 requests made twice, want at most %d", hedged, want)
	}
	if got := l.Stuck(); got != stuckFactor*time.Second {
		t.Errorf("a request of a service that takes a second counts as stuck after %v", got)
	}
}
