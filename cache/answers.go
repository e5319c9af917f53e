// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"slices"
	"sync"
	"time"
)

const (
	// A request counts as stalled after stallFactor times what nearly all take to
	// their first byte, but not before stallMin.
	stallMin    = 1500 * time.Millisecond
	stallFactor = 3
	// Of hedgeShare requests to one service one may be asked a second time.
	hedgeShare = 8

	answersKept = 64
)

// answers remembers how soon a service begins to answer. The zero value knows
// nothing. For concurrent use.
type answers struct {
	mu     sync.Mutex // guards the fields below
	last   [answersKept]time.Duration
	asked  int64
	hedges int64
}

// note counts an answer that began after took.
func (a *answers) note(took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[a.asked%answersKept] = took
	a.asked++
}

// usual is what an answer takes to its first byte where no connection has to be
// made: the quickest of the last ones; 0 if there was none.
func (a *answers) usual() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked == 0 {
		return 0
	}
	return slices.Min(a.last[:min(a.asked, answersKept)])
}

// stalled is how long without a byte means that a request is stuck. Of 64
// answers the slowest stands for the 99th percentile.
func (a *answers) stalled() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(stallMin, stallFactor*slices.Max(a.last[:]))
}

// hedge reports whether one more request may be asked a second time, and counts it.
func (a *answers) hedge() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hedges*hedgeShare > a.asked {
		return false
	}
	a.hedges++
	return true
}
