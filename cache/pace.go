// SPDX-License-Identifier: Apache-2.0

package cache

import "time"

const (
	// paceStart is how many requests a service gets at once as long as nobody
	// reads a whole image; paceMax how many it gets at most.
	paceStart = 4
	paceMax   = 16

	paceWindow = 500 * time.Millisecond // what is compared with what
	paceRest   = 8                      // windows between two trials, once the best was found
	paceCalm   = 60                     // windows after the service has complained
	// paceForgive is how long after a complaint nobody is given paceMax at once.
	paceForgive = 10 * time.Minute

	paceGain = 1.1  // what more requests must bring
	paceLoss = 0.95 // what fewer may cost
)

// A pace finds out how many requests at once a service is best read with, by
// climbing: it tries more as long as that is faster, goes back when it is not,
// and later tries fewer, because those who bring nothing only take the place of
// others. A service that complains gets half as many. The zero pace stands at
// paceStart. Not for concurrent use.
type pace struct {
	limit  int     // 0 is paceStart
	former int     // limit before the step on trial; 0 while there is none
	base   float64 // bytes a second with former
	rest   int     // windows to let pass before the next trial
	down   bool    // which way that goes
	fine   bool    // steps of one or two, not doublings, from now on

	begin   time.Time // of the window
	bytes   int64     // that came in since
	waiting bool      // somebody would have made more requests: the limit was what mattered

	complaint time.Time // the last one
}

// now returns how many requests there may be.
func (p *pace) now() int {
	if p.limit == 0 {
		p.limit = paceStart
	}
	return p.limit
}

// note counts n bytes that came in, and reports whether the limit has changed.
func (p *pace) note(n int64, at time.Time) bool {
	if at.Sub(p.begin) > 4*paceWindow { // nothing went on for a while
		p.begin, p.bytes, p.waiting = at, 0, false
	}
	p.bytes += n
	took := at.Sub(p.begin)
	if took < paceWindow {
		return false
	}
	rate, waiting := float64(p.bytes)/took.Seconds(), p.waiting
	p.begin, p.bytes, p.waiting = at, 0, false
	before := p.now()
	if waiting {
		p.judge(rate)
	}
	return p.limit != before
}

// judge looks at a window in which the limit mattered.
func (p *pace) judge(rate float64) {
	switch {
	case p.rest > 0:
		p.rest--
		return
	case p.former == 0: // nothing is on trial
	case p.limit > p.former && rate < p.base*paceGain, p.limit < p.former && rate < p.base*paceLoss:
		p.limit, p.former = p.former, 0
		p.down, p.fine, p.rest = !p.down, true, paceRest
		return
	}
	p.base = rate
	p.try()
}

// try makes the next step. The window in which it is made says little: what is
// new has yet to get its first bytes.
func (p *pace) try() {
	p.former, p.rest = p.limit, 1
	switch {
	case p.down:
		p.limit = max(p.limit-max(1, p.limit/4), 1)
	case p.fine:
		p.limit = min(p.limit+2, paceMax)
	default:
		p.limit = min(2*p.limit, paceMax)
	}
	if p.limit == p.former { // no further this way
		p.former, p.down, p.fine, p.rest = 0, !p.down, true, paceRest
	}
}

// run goes to the most at once: somebody reads a whole image, and each step of
// a climb would cost a round trip. A service that has complained is spared.
func (p *pace) run(at time.Time) bool {
	if !p.complaint.IsZero() && at.Sub(p.complaint) < paceForgive || p.limit == paceMax {
		return false
	}
	*p = pace{limit: paceMax, down: true, fine: true, rest: paceRest, begin: p.begin, bytes: p.bytes}
	return true
}

// slow halves the limit, once for all requests that are refused together.
func (p *pace) slow(at time.Time) {
	if p.complaint.IsZero() || at.Sub(p.complaint) >= paceWindow {
		p.limit = max(p.now()/2, 1)
	}
	p.complaint = at
	p.former, p.down, p.fine, p.rest = 0, false, true, paceCalm
}
