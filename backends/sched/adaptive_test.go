// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"testing"
	"time"
)

// climb lets p run against a service of which bandwidth says how many bytes a
// second it sends to so many requests, and returns where p stands after each window.
func climb(p *limit, windows int, bandwidth func(requests int) float64) []int {
	var limits []int
	at := time.Unix(1e9, 0)
	p.note(0, at)
	for range windows {
		p.wanted = true
		at = at.Add(limitWindow)
		p.note(int64(bandwidth(p.now())*limitWindow.Seconds()), at)
		limits = append(limits, p.now())
	}
	return limits
}

func TestLimit(t *testing.T) {
	t.Parallel()
	shared := func(most float64) func(int) float64 {
		return func(n int) float64 { return min(float64(n)*10e6, most) }
	}
	tests := map[string]struct {
		start     limit
		bandwidth func(int) float64
		low, high int // where it may stand from the tenth second on
	}{
		"each connection is slow":    {limit{}, shared(1e12), 12, LimitMax},
		"two fill the line":          {limit{}, shared(20e6), 1, 6},
		"six fill the line":          {limit{}, shared(60e6), 5, 9},
		"more are slower":            {limit{}, func(n int) float64 { return 50e6 / float64(n) }, 1, 4},
		"a whole image, slow each":   {limit{n: LimitMax, down: true, fine: true}, shared(1e12), 12, LimitMax},
		"a whole image, a full line": {limit{n: LimitMax, down: true, fine: true}, shared(40e6), 1, 14},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := test.start
			limits := climb(&p, 120, test.bandwidth)
			for _, n := range limits[20:] {
				if n < test.low || n > test.high {
					t.Fatalf("between %d and %d wanted: %v", test.low, test.high, limits)
				}
			}
		})
	}
}

// The first requests of a whole image are not held back by a climb, except where
// the service has complained.
func TestLimit_complaints(t *testing.T) {
	t.Parallel()
	var p limit
	at := time.Unix(1e9, 0)
	if !p.most(at) || p.now() != LimitMax {
		t.Errorf("%d requests for a whole image, want %d", p.now(), LimitMax)
	}
	for range 5 { // refused together
		p.halve(at)
	}
	if p.now() != LimitMax/2 {
		t.Errorf("%d requests after a complaint, want %d", p.now(), LimitMax/2)
	}
	if p.most(at.Add(time.Minute)) {
		t.Error("ran a minute after a complaint")
	}
	for i := range 10 {
		p.halve(at.Add(time.Duration(i+1) * time.Second))
	}
	if p.now() != 1 {
		t.Errorf("%d requests after many complaints, want 1", p.now())
	}
	if !p.most(at.Add(time.Hour)) {
		t.Error("an old complaint is held against the service for ever")
	}
}

// A window in which nobody waited for a slot says nothing about the limit.
func TestLimit_idle(t *testing.T) {
	t.Parallel()
	var p limit
	at := time.Unix(1e9, 0)
	for i := range 100 {
		p.note(int64(i)<<20, at)
		at = at.Add(limitWindow)
	}
	if p.now() != limitStart {
		t.Errorf("%d requests, want %d still", p.now(), limitStart)
	}
}
