// SPDX-License-Identifier: Apache-2.0

package sched

import "time"

const (
	// limitStart is how many transfers a service gets at once as long as nobody reads
	// a whole image.
	limitStart = 4
	// LimitMax is how many transfers in the background a service gets at most.
	LimitMax = 16

	limitWindow = 500 * time.Millisecond // what is compared with what
	limitRest   = 8                      // windows between two trials, once the best was found
	limitCalm   = 60                     // windows after the service has complained
	// limitForgive is how long after a complaint LimitMax is not allowed at once.
	limitForgive = 10 * time.Minute

	limitGain = 1.1  // what more transfers must bring
	limitLoss = 0.95 // what fewer may cost
)

// A limit adapts how many transfers there are at once to what a service is best read
// with, by climbing: it tries more as long as that is faster, goes back when it is
// not, and later tries fewer, because those who bring nothing only take the place of
// others. A service that complains gets half as many. The zero limit stands at
// limitStart. Not for concurrent use.
type limit struct {
	n      int     // 0 is limitStart
	former int     // n before the step on trial; 0 while there is none
	base   float64 // bytes a second with former
	rest   int     // windows to let pass before the next trial
	down   bool    // which way that goes
	fine   bool    // steps of one or two, not doublings, from now on

	begin  time.Time // of the window
	bytes  int64     // that came in since
	wanted bool      // more transfers would have been made: the limit was what mattered

	complaint time.Time // the last one
}

// now returns how many transfers there may be.
func (l *limit) now() int {
	if l.n == 0 {
		l.n = limitStart
	}
	return l.n
}

// note counts n bytes that came in, and reports whether the limit has changed.
func (l *limit) note(n int64, at time.Time) bool {
	if at.Sub(l.begin) > 4*limitWindow { // nothing went on for a while
		l.begin, l.bytes, l.wanted = at, 0, false
	}
	l.bytes += n
	took := at.Sub(l.begin)
	if took < limitWindow {
		return false
	}
	rate, wanted := float64(l.bytes)/took.Seconds(), l.wanted
	l.begin, l.bytes, l.wanted = at, 0, false
	before := l.now()
	if wanted {
		l.judge(rate)
	}
	return l.n != before
}

// judge looks at a window in which the limit mattered.
func (l *limit) judge(rate float64) {
	switch {
	case l.rest > 0:
		l.rest--
		return
	case l.former == 0: // nothing is on trial
	case l.n > l.former && rate < l.base*limitGain, l.n < l.former && rate < l.base*limitLoss:
		l.n, l.former = l.former, 0
		l.down, l.fine, l.rest = !l.down, true, limitRest
		return
	}
	l.base = rate
	l.try()
}

// try makes the next step. The window in which it is made says little: what is
// new has yet to get its first bytes.
func (l *limit) try() {
	l.former, l.rest = l.n, 1
	switch {
	case l.down:
		l.n = max(l.n-max(1, l.n/4), 1)
	case l.fine:
		l.n = min(l.n+2, LimitMax)
	default:
		l.n = min(2*l.n, LimitMax)
	}
	if l.n == l.former { // no further this way
		l.former, l.down, l.fine, l.rest = 0, !l.down, true, limitRest
	}
}

// most goes to LimitMax at once, as each step of a climb would cost a round trip, and
// reports whether it did. A service that has complained is spared.
func (l *limit) most(at time.Time) bool {
	if !l.complaint.IsZero() && at.Sub(l.complaint) < limitForgive || l.n == LimitMax {
		return false
	}
	*l = limit{n: LimitMax, down: true, fine: true, rest: limitRest, begin: l.begin, bytes: l.bytes}
	return true
}

// halve halves the limit, once for all transfers that are refused together.
func (l *limit) halve(at time.Time) {
	if l.complaint.IsZero() || at.Sub(l.complaint) >= limitWindow {
		l.n = max(l.now()/2, 1)
	}
	l.complaint = at
	l.former, l.down, l.fine, l.rest = 0, false, true, limitCalm
}
