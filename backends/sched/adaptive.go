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

	// loneSample is from how many bytes on a body is measured.
	loneSample = 48 << 10

	// Where so many bytes come in at leapRate bytes a second, the line carries many
	// transfers. It may be a slow one if they do not within leapTime, or leapTrips round
	// trips: connections start slowly.
	leapSample, leapRate = 192 << 10, 16e6
	leapTime, leapTrips  = 100 * time.Millisecond, 8
)

// A limit adapts how many transfers there are at once to what a service is best read
// with, by climbing: it tries more as long as that is faster, goes back when it is
// not, and later tries fewer, because those who bring nothing only take the place of
// others. What one body brought while it was alone says how few fill the line. A service
// that complains gets half as many. The zero limit stands at limitStart. Not for
// concurrent use.
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
	held   bool      // some yielded: the window says nothing
	rate   float64   // bytes a second in the last window that none yielded in, or more

	lone float64 // bytes a second of one body while none was in its way; 0: not known

	trip      time.Duration // of a request
	leaping   bool          // it is to go to LimitMax if the line can take that
	leapBegin time.Time     // when the first bytes came in since
	leapBytes int64         // that came in since
	leapt     time.Time     // the last time

	complaint time.Time // the last one
}

// now returns how many transfers there may be.
func (l *limit) now() int {
	if l.n == 0 {
		l.n = limitStart
	}
	return l.n
}

// alone notes that one body has brought n bytes since others were no longer in its way.
func (l *limit) alone(n int64, took time.Duration) {
	if n >= loneSample {
		l.lone = rate(n, took)
	}
}

// rate is in bytes a second.
func rate(n int64, took time.Duration) float64 { return float64(n) / max(took.Seconds(), 1e-6) }

// note counts n bytes that came in, and reports whether the limit has changed.
func (l *limit) note(n int64, at time.Time) bool {
	if at.Sub(l.begin) > 4*limitWindow { // nothing went on for a while
		l.begin, l.bytes, l.wanted, l.held = at, 0, false, false
	}
	l.bytes += n
	if l.leaping && l.leap(n, at) {
		return true
	}
	took := at.Sub(l.begin)
	if took < limitWindow {
		return false
	}
	judge, before := l.wanted && !l.held, l.now()
	now := rate(l.bytes, took)
	if l.rate = max(l.rate, now); !l.held {
		l.rate = now
	}
	l.begin, l.bytes, l.wanted, l.held = at, 0, false, false
	if judge {
		l.judge(now)
	}
	return l.n != before
}

// judge looks at a window in which the limit mattered.
func (l *limit) judge(rate float64) {
	enough := l.n
	if l.lone > 0 {
		enough = int(rate/l.lone*1.5) + 2
	}
	switch {
	case l.former == 0 && enough <= l.n/2: // far too many: no time to lose
		l.base, l.former = rate, l.n
		l.n, l.down, l.fine, l.rest = enough, true, true, 1
		return
	case l.rest > 0:
		l.rest--
		return
	case l.former == 0: // nothing is on trial
	case l.n > l.former && rate < l.base*limitGain, l.n < l.former && rate < l.base*limitLoss:
		if l.down {
			l.lone = 0 // or it would be the same again
		}
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

// most lets the limit go to LimitMax as soon as the first bytes say that the line can
// take that: each step of a climb would cost a round trip. A service that has complained
// is spared, and one where it was too much before.
func (l *limit) most(at time.Time) {
	spared := func(since time.Time) bool { return !since.IsZero() && at.Sub(since) < limitForgive }
	if !l.leaping && !spared(l.complaint) && !spared(l.leapt) {
		l.leaping, l.leapBegin, l.leapBytes = true, time.Time{}, 0
	}
}

// leap counts n bytes that came in since most, and reports whether that was enough.
func (l *limit) leap(n int64, at time.Time) bool {
	if l.leapBegin.IsZero() {
		l.leapBegin = at
	}
	l.leapBytes += n
	took := at.Sub(l.leapBegin)
	if l.leapBytes < leapSample || rate(l.leapBytes, took) < leapRate {
		l.leaping = took < max(leapTime, leapTrips*l.trip)
		return false
	}
	l.n, l.former, l.down, l.fine, l.rest = LimitMax, 0, true, true, limitRest
	l.leaping, l.leapt, l.complaint = false, at, time.Time{}
	return true
}

// recent is how many bytes a second came in, last.
func (l *limit) recent(at time.Time) float64 {
	if l.rate == 0 && l.bytes > 0 {
		return rate(l.bytes, at.Sub(l.begin))
	}
	return l.rate
}

// halve halves the limit, once for all transfers that are refused together.
func (l *limit) halve(at time.Time) {
	if l.complaint.IsZero() || at.Sub(l.complaint) >= limitWindow {
		l.n = max(l.now()/2, 1)
	}
	l.complaint = at
	l.former, l.down, l.fine, l.rest, l.leaping = 0, false, true, limitCalm, false
}
