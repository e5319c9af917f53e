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

// hosts are the ways to all hosts that requests are under way to.
type hosts struct {
	mu     sync.Mutex // guards the fields below; before that of a host
	byHost map[string]*host
}

// A host is what is known of the way to one host.
type host struct {
	users int // requests under way; guarded by hosts.mu

	mu      sync.Mutex // guards the fields below
	waiting int        // streams that wait for their next bytes
	share   float64    // seconds: the sum of all moments, each divided by waiting
	at      time.Time  // to which share goes
}

// take returns the host of that name, and what gives it back.
func (l *hosts) take(name string) (*host, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byHost == nil {
		l.byHost = map[string]*host{}
	}
	to := l.byHost[name]
	if to == nil {
		to = &host{}
		l.byHost[name] = to
	}
	to.users++
	return to, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if to.users--; to.users == 0 {
			delete(l.byHost, name)
		}
	}
}

// shift adds to the number of streams that wait, and returns the share until now.
func (l *host) shift(by int) float64 {
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

// A rateWatch watches one stream, up or down.
type rateWatch struct {
	host   *host
	rate   float64 // bytes a second that all streams of the host together must bring
	window time.Duration
	cancel context.CancelCauseFunc

	mu      sync.Mutex // guards the fields below; before the host's
	timer   *time.Timer
	waiting bool
	since   time.Time     // when this wait began
	from    float64       // the host's share then
	spent   time.Duration // of the window, in waits before this one
	owed    float64       // bytes, for those
	got     int64         // bytes in this window
}

func newRateWatch(h *host, rate int64, window time.Duration, cancel context.CancelCauseFunc) *rateWatch {
	return &rateWatch{host: h, rate: float64(rate), window: window, cancel: cancel}
}

// piece is how many bytes an upload may give out at a time, so that several of them
// are taken in a window at the least rate.
func (w *rateWatch) piece() int {
	return int(min(max(w.rate*w.window.Seconds()/4, 1<<10), 32<<10))
}

// wait begins to wait for the next bytes.
func (w *rateWatch) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting {
		return
	}
	w.waiting, w.since, w.from = true, time.Now(), w.host.shift(1)
	if w.timer == nil {
		w.timer = time.AfterFunc(w.window-w.spent, w.judge)
		return
	}
	w.timer.Reset(w.window - w.spent)
}

// rest ends the wait; n bytes came.
func (w *rateWatch) rest(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got += int64(n)
	if !w.waiting {
		return
	}
	w.timer.Stop()
	w.account(-1)
	w.waiting = false
	if float64(w.got) >= w.rate*w.window.Seconds() { // enough for whoever else waits
		w.spent, w.owed, w.got = 0, 0, 0
	}
}

// account adds up the wait until now. Call with mu held, while waiting.
func (w *rateWatch) account(leave int) {
	now, share := time.Now(), w.host.shift(leave)
	w.spent += now.Sub(w.since)
	w.owed += (share - w.from) * w.rate
	w.since, w.from = now, share
}

// judge runs when a window is over.
func (w *rateWatch) judge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		return
	}
	w.account(0)
	if w.spent < w.window { // the wait is another one than the timer was set for
		w.timer.Reset(w.window - w.spent)
		return
	}
	if float64(w.got) < w.owed {
		w.cancel(errIdle)
		return
	}
	w.spent, w.owed, w.got = 0, 0, 0
	w.timer.Reset(w.window)
}
