// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"sync"
	"time"
)

// The least rate is one of a host, not of a stream: several streams share what the
// line to it carries, and an honest slow line must not be cut off because many use
// it. So each stream owes its share, the rate divided by the number of streams that
// wait for the same host at that moment. One that has waited for a whole window and
// got less than it owes is cut off: a byte now and then is as good as silence.

// lines are the ways to all hosts that requests are under way to.
type lines struct {
	mu     sync.Mutex // guards the fields below; before a line's
	byHost map[string]*line
}

// A line is the way to one host.
type line struct {
	users int // requests under way; guarded by lines.mu

	mu      sync.Mutex // guards the fields below
	waiting int        // streams that wait for their next bytes
	share   float64    // seconds: the sum of all moments, each divided by waiting
	at      time.Time  // to which share goes
}

// take returns the line to host, and what gives it back.
func (l *lines) take(host string) (*line, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byHost == nil {
		l.byHost = map[string]*line{}
	}
	to := l.byHost[host]
	if to == nil {
		to = &line{}
		l.byHost[host] = to
	}
	to.users++
	return to, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if to.users--; to.users == 0 {
			delete(l.byHost, host)
		}
	}
}

// shift adds to the number of streams that wait, and returns the share until now.
func (l *line) shift(by int) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.waiting > 0 {
		l.share += now.Sub(l.at).Seconds() / float64(l.waiting)
	}
	l.at = now
	l.waiting += by
	return l.share
}

// A pace watches one stream, up or down.
type pace struct {
	line   *line
	rate   float64 // bytes a second that all streams of the line together must bring
	window time.Duration
	cancel context.CancelCauseFunc

	mu      sync.Mutex // guards the fields below; before the line's
	timer   *time.Timer
	waiting bool
	since   time.Time     // when this wait began
	from    float64       // the line's share then
	spent   time.Duration // of the window, in waits before this one
	owed    float64       // bytes, for those
	got     int64         // bytes in this window
}

func newPace(l *line, rate int64, window time.Duration, cancel context.CancelCauseFunc) *pace {
	return &pace{line: l, rate: float64(rate), window: window, cancel: cancel}
}

// piece is how many bytes an upload may give out at a time, so that several of them
// are taken in a window at the least rate.
func (p *pace) piece() int {
	return int(min(max(p.rate*p.window.Seconds()/4, 1<<10), 32<<10))
}

// wait begins to wait for the next bytes.
func (p *pace) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		return
	}
	p.waiting, p.since, p.from = true, time.Now(), p.line.shift(1)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.window-p.spent, p.judge)
		return
	}
	p.timer.Reset(p.window - p.spent)
}

// rest ends the wait; n bytes came.
func (p *pace) rest(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got += int64(n)
	if !p.waiting {
		return
	}
	p.timer.Stop()
	p.account(-1)
	p.waiting = false
	if float64(p.got) >= p.rate*p.window.Seconds() { // enough for whoever else waits
		p.spent, p.owed, p.got = 0, 0, 0
	}
}

// account adds up the wait until now. Call with mu held, while waiting.
func (p *pace) account(leave int) {
	now, share := time.Now(), p.line.shift(leave)
	p.spent += now.Sub(p.since)
	p.owed += (share - p.from) * p.rate
	p.since, p.from = now, share
}

// judge runs when a window is over.
func (p *pace) judge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting {
		return
	}
	p.account(0)
	if p.spent < p.window { // the wait is another one than the timer was set for
		p.timer.Reset(p.window - p.spent)
		return
	}
	if float64(p.got) < p.owed {
		p.cancel(errIdle)
		return
	}
	p.spent, p.owed, p.got = 0, 0, 0
	p.timer.Reset(p.window)
}
