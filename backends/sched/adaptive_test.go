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

// leaps reports whether the limit goes to its most for a whole image of which bytes come
// in at that rate.
func leaps(l *limit, at time.Time, bytesPerSecond int64) bool {
	before := l.now()
	l.most(at)
	for range 100 {
		at = at.Add(10 * time.Millisecond)
		l.note(bytesPerSecond/100, at)
	}
	return before < LimitMax && l.now() == LimitMax
}

// The first requests of a whole image are not held back by a climb, except where the
// service has complained, or the line may be a slow one.
func TestLimit_leap(t *testing.T) {
	t.Parallel()
	var p limit
	at := time.Unix(1e9, 0)
	if leaps(&p, at, leapRate/2) {
		t.Error("ran behind a slow line")
	}
	if !leaps(&p, at.Add(time.Minute), 2*leapRate) {
		t.Errorf("%d requests for a whole image, want %d", p.now(), LimitMax)
	}
	p.n = 2
	if leaps(&p, at.Add(2*time.Minute), 2*leapRate) {
		t.Error("ran again after it was found to be too much")
	}
	p = limit{}
	for range 5 { // refused together
		p.halve(at)
	}
	if p.now() != limitStart/2 {
		t.Errorf("%d requests after a complaint, want %d", p.now(), limitStart/2)
	}
	if leaps(&p, at.Add(time.Minute), 2*leapRate) {
		t.Error("ran a minute after a complaint")
	}
	for i := range 10 {
		p.halve(at.Add(time.Duration(i+1) * time.Second))
	}
	if p.now() != 1 {
		t.Errorf("%d requests after many complaints, want 1", p.now())
	}
	if !leaps(&p, at.Add(time.Hour), 2*leapRate) {
		t.Error("an old complaint is held against the service for ever")
	}
}

// What one body brought alone tells at once that far fewer fill the line.
func TestLimit_alone(t *testing.T) {
	t.Parallel()
	p := limit{n: LimitMax, down: true, fine: true, rest: limitRest}
	p.alone(loneSample, loneSample*time.Second/10e6)
	limits := climb(&p, 4, func(int) float64 { return 10e6 })
	if limits[0] != 3 || limits[3] > 3 {
		t.Errorf("limits of %v where one body fills the line, want 3 at once", limits)
	}
	// It was a burst: fewer bring less.
	p = limit{n: LimitMax, down: true, fine: true, rest: limitRest}
	p.alone(loneSample, loneSample*time.Second/100e6)
	limits = climb(&p, 4, func(n int) float64 { return float64(n) * 10e6 })
	if limits[3] != LimitMax {
		t.Errorf("limits of %v where each body has its own rate, want %d again", limits, LimitMax)
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
