// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"sync"
	"time"
)

// A throttle remembers when a service asked for fewer requests: what one
// operation is told in confidence, and tries again later, all others should
// know. The zero value has not been told anything.
type throttle struct {
	mu    sync.Mutex // guards the fields below
	times int
	until time.Time
}

// meet looks at how a try ended: too many requests, or a delay that the service
// asked for with whatever error (503, most often).
func (t *throttle) meet(err error) {
	after := RetryAfter(err)
	if after == 0 && !errors.Is(err, ErrRateLimited) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.times++
	if until := time.Now().Add(after); until.After(t.until) {
		t.until = until
	}
}

// Throttled returns how often the service asked for fewer requests (429, or an
// answer with Retry-After) so far, and until when it wants to be left alone: the
// zero time if it never did. Who has work that can wait goes by it; operations
// that are called meanwhile are tried all the same.
func (c *Client) Throttled() (times int, until time.Time) {
	c.throttle.mu.Lock()
	defer c.throttle.mu.Unlock()
	return c.throttle.times, c.throttle.until
}
