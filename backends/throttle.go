// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// limitPause is how long a service is left alone that wants fewer requests and does not
// say for how long.
const limitPause = time.Minute

// A limit is until when a service does not want to be asked questions of one kind. Many
// count requests by the day: looking must not spend what reading needs. The zero value
// limits nothing.
type limit struct {
	mu    sync.Mutex // guards the fields below
	until time.Time
	said  error
}

// meet notes that the service wants to be left alone for so long.
func (l *limit) meet(err error, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(after); until.After(l.until) {
		l.until, l.said = until, err
		if delay, ok := errors.AsType[*DelayError](err); ok {
			l.said = delay.Err
		}
	}
}

// pass waits until the service may be asked, if that is no longer than most.
//
// Errors: what the service said, with the time that is left; ctx's.
func (l *limit) pass(ctx context.Context, most time.Duration) error {
	l.mu.Lock()
	until, said := l.until, l.said
	l.mu.Unlock()
	left := time.Until(until)
	switch {
	case left <= 0:
		return nil
	case left > most:
		return &DelayError{Err: fmt.Errorf("%w; it is not asked before %s", said, until.Format(time.TimeOnly)), After: left}
	case !Pause(ctx, left+rand.N(left/10+100*time.Millisecond), nil): // not all at once
		return ctx.Err()
	}
	return nil
}
