// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	breakerTries  = 5                // silent tries in a row that open the breaker …
	breakerWindow = 10 * time.Second // … or two, this far apart: time-outs are slow to count
	breakerMin    = 5 * time.Second  // how long it stays open at first; doubled after each probe in vain
	breakerMax    = 30 * time.Second
)

// A breaker stops a client from asking a service that does not answer. Once
// open it lets one probe through after each pause, and an answer of any kind
// closes it. The zero breaker is closed.
type breaker struct {
	mu      sync.Mutex // guards the fields below
	silent  int        // tries in a row without an answer
	first   time.Time  // of them
	last    error
	pause   time.Duration // 0 while closed
	until   time.Time     // no try before
	probing bool
}

// allow reports whether to try now, and whether that is the probe. After a nil
// error, done must be called. Errors: a permanent ErrUnavailable.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return false, nil
	}
	if wait := time.Until(b.until); wait > 0 || b.probing {
		next := "the next is on its way"
		if !b.probing {
			next = fmt.Sprintf("the next in %v", max(wait.Round(time.Second), time.Second))
		}
		return false, backoff.Permanent(fmt.Errorf("%w: no answer to the last %d requests, %s (%v)", ErrUnavailable, b.silent, next, b.last))
	}
	b.probing = true
	return true, nil
}

// open reports whether allow would refuse now.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0 && (b.probing || time.Now().Before(b.until))
}

// An outcome is what a try told about the service.
type outcome int

const (
	unknown  outcome = iota // the caller gave up first
	answered                // with whatever
	silence
)

// done ends a try that allow let through; err is for the message.
func (b *breaker) done(probe bool, o outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch o {
	case answered:
		b.silent, b.pause, b.last = 0, 0, nil
	case silence:
		if b.silent == 0 {
			b.first = time.Now()
		}
		b.silent, b.last = b.silent+1, err
		slow := b.silent > 1 && time.Since(b.first) >= breakerWindow
		// Tries that began before the breaker opened must not prolong the pause.
		if probe || b.pause == 0 && (b.silent >= breakerTries || slow) {
			b.pause = min(max(2*b.pause, breakerMin), breakerMax)
			b.until = time.Now().Add(b.pause)
		}
	case unknown:
	}
}
