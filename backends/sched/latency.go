// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"slices"
	"sync"
	"time"
)

const (
	// StuckMin is the time without a byte before which no request counts as stuck.
	// Where nearly all take longer to their first byte, it is stuckFactor times that.
	StuckMin    = 1500 * time.Millisecond
	stuckFactor = 3
	// Of hedgeShare requests to one service one may be made a second time.
	hedgeShare = 8

	latenciesKept = 64
)

// A Latency remembers how soon a service begins to answer, and says from that when a
// request is stuck and may be hedged. The zero value knows nothing. For concurrent use.
type Latency struct {
	mu     sync.Mutex // guards the fields below
	last   [latenciesKept]time.Duration
	asked  int64
	hedges int64
}

// Note counts an answer that began after took.
func (l *Latency) Note(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.asked%latenciesKept] = took
	l.asked++
}

// Usual is what an answer takes to its first byte where no connection has to be
// made: the quickest of the last ones; 0 if there was none.
func (l *Latency) Usual() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == 0 {
		return 0
	}
	return slices.Min(l.last[:min(l.asked, latenciesKept)])
}

// Stuck is how long without a byte means that a request is stuck. Of 64 answers the
// slowest stands for the 99th percentile.
func (l *Latency) Stuck() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(StuckMin, stuckFactor*slices.Max(l.last[:]))
}

// MayHedge reports whether one more request may be made a second time.
func (l *Latency) MayHedge() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hedges*hedgeShare <= l.asked
}

// Hedge is MayHedge, and counts the request if so.
func (l *Latency) Hedge() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hedges*hedgeShare > l.asked {
		return false
	}
	l.hedges++
	return true
}
