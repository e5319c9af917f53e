// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends/sched"
)

const (
	maxTries = 8                // of one operation
	maxDelay = 10 * time.Second // between two of them, unless the service asks for more
	// maxWait is maxDelay where somebody waits: when the service is back they go on
	// soon after.
	maxWait = 2 * time.Second
)

// quotaShare is the part of an operation's time in which a limit that it did not meet itself
// may end: it needs the rest, and those who look do not wait for long.
const quotaShare = 4

// quotaPause is how long a service is left alone that wants fewer requests and does not
// say for how long.
const quotaPause = time.Minute

// LeastProgress is how many bytes more a try must have brought, or stored, to be no
// failure: what brings a byte at each try would be tried for ever.
const LeastProgress = 16 << 10

// delays are those between the tries of one operation: exponential with full jitter,
// never before the service's Retry-After, never past the operation's end.
type delays struct {
	exp      *backoff.ExponentialBackOff
	sched    *sched.Scheduler
	quota    *sched.Quota // nil: what is tried whatever the service said before
	demand   demand
	deadline time.Time
	tries    int
	after    time.Duration // asked for with the last error
	last     error
}

func (c *Client) delays(ctx context.Context) *delays {
	d := &delays{sched: c.sched, demand: demandOf(ctx), deadline: time.Now().Add(c.opts.MaxElapsed)}
	if end, ok := ctx.Deadline(); ok && end.Before(d.deadline) {
		d.deadline = end
	}
	// backoff draws from interval·(1±factor): with a factor of 1 that is
	// anything between 0 and twice the interval, which is full jitter.
	d.exp = backoff.NewExponentialBackOff(backoff.WithInitialInterval(125*time.Millisecond),
		backoff.WithMultiplier(2), backoff.WithRandomizationFactor(1),
		backoff.WithMaxInterval(maxDelay/2), backoff.WithMaxElapsedTime(0))
	return d
}

// next returns how long to wait before the next try, or that there is none.
func (d *delays) next() (wait time.Duration, again bool) {
	d.tries++
	wait = d.exp.NextBackOff()
	left := time.Until(d.deadline)
	switch {
	case d.after > 0:
		// All who were turned away at once must not come back at once.
		wait = d.after + rand.N(d.after/10+100*time.Millisecond)
	case d.demand.raised():
		return min(wait, maxWait, left), left > 0
	}
	refused := !d.demand.raised() && (d.tries >= maxTries || d.sched.Silent())
	again = !refused && wait <= left
	if !again && d.after == 0 && errors.Is(d.last, ErrRateLimited) {
		d.spent(quotaPause)
	}
	return wait, again
}

// spent notes that the service wants to be left alone for so long.
func (d *delays) spent(wait time.Duration) {
	if d.quota == nil {
		return
	}
	said := d.last
	if delay, ok := errors.AsType[*DelayError](said); ok {
		said = delay.Err
	}
	d.quota.Spent(said, wait)
}

// pass waits until the service may be asked, if that is no longer than most.
//
// Errors: what the service said, with the time that is left; ctx's.
func (d *delays) pass(ctx context.Context, most time.Duration) error {
	until, said := d.quota.Until()
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

// progressed gives an operation that has come further all its tries again.
func (d *delays) progressed(budget time.Duration) {
	d.tries, d.deadline = 0, time.Now().Add(budget)
	d.exp.Reset()
}

// left is how long a try may be silent: half of the budget, so that there is a
// second one, but never beyond the operation's end. Where somebody waits, a sixth,
// a third and a half: a connection that lost its other end says nothing either.
func (d *delays) left(budget time.Duration) time.Duration {
	limit := budget / 2
	if d.demand.raised() {
		limit = min(budget/6<<min(d.tries, 2), limit)
	}
	return max(min(limit, time.Until(d.deadline)), time.Millisecond)
}

// leastTry is the time below which a try that was not answered says nothing of the service.
const leastTry = 250 * time.Millisecond

// retry calls op until it succeeds or there is no point in going on. The error
// is op's last one, or the one before if the operation's end left the last no time to be
// answered, or ctx's if that ended during a pause.
func (d *delays) retry(ctx context.Context, op func() error) error {
	if d.quota != nil {
		if err := d.pass(ctx, time.Until(d.deadline)/quotaShare); err != nil {
			return err
		}
	}
	for {
		before, cut := d.last, time.Until(d.deadline) < leastTry
		err := op()
		if cut && before != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return before
		}
		if p, ok := errors.AsType[*backoff.PermanentError](err); ok {
			return p.Err
		}
		if err == nil || !transient(err) {
			return err
		}
		d.last, d.after = err, RetryAfter(err)
		if d.after > 0 || errors.Is(err, ErrRateLimited) {
			d.sched.Complained(d.after)
		}
		if d.after > 0 {
			d.spent(d.after)
		}
		wait, again := d.next()
		early := d.demand // what somebody begins to wait for is tried then
		if d.after > 0 || d.demand.raised() {
			early = nil
		}
		switch {
		case again && Pause(ctx, wait, early):
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			return err
		}
	}
}

// once is for one request with a short answer: it is tried again while that can help.
// A question has its limit.
func once[T any](ctx context.Context, c *Client, l *sched.Quota, fn func(context.Context) (T, error)) (T, error) {
	var v T
	d := c.delays(ctx)
	d.quota = l
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, d.left(c.opts.MaxElapsed), sched.Question)
		if err != nil {
			return err
		}
		err = Guard(c.opts.Log, func() (err error) { v, err = fn(tried); return err })
		return t.end(ctx, tried, err)
	})
	return v, err
}

// permanent keeps err from being tried again.
func permanent(err error) error {
	if err == nil {
		return nil
	}
	return backoff.Permanent(err)
}

// Pause waits for d, but not beyond early, which may be nil, and reports whether ctx is still alive.
func Pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
