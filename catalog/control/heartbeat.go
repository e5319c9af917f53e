// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A verb may take hours, but the process that does it answers at once whether it is
// alive: it is asked while a verb is under way. One that is stopped, or hangs, takes
// connections nevertheless: the kernel does that.
const (
	pingEvery   = 3 * time.Second
	pingTimeout = 15 * time.Second
	pingVerb    = "ping"
)

// A SilentError says that the process with the mount does not answer. It is a
// backends.ErrUnavailable.
type SilentError struct {
	PID int // 0 if it is not known
}

// Error says what to do.
func (e *SilentError) Error() string {
	who := "the process with the mount"
	if e.PID != 0 {
		who = fmt.Sprintf("the process with the mount (pid %d)", e.PID)
	}
	text := fmt.Sprintf("%s has not answered for %v: it is stopped or hangs", who, pingTimeout)
	if e.PID != 0 {
		text += fmt.Sprintf("; let it go on (kill -CONT %d), or end it (kill -KILL %d, then fusermount3 -uz MOUNTPOINT)", e.PID, e.PID)
	}
	return text
}

// Unwrap returns backends.ErrUnavailable.
func (e *SilentError) Unwrap() error { return backends.ErrUnavailable }

// watched returns a context that ends, with a SilentError, when the other side does
// not answer any more. The caller calls stop.
func (c *Client) watched(ctx context.Context) (_ context.Context, stop func()) {
	if c.transport == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if errors.Is(c.ping(ctx), context.DeadlineExceeded) {
				cancel(&SilentError{PID: c.pid})
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// ping waits for any answer: that of an older release is that it knows no such verb.
// Errors: context.DeadlineExceeded; others are left to the verb under way.
func (c *Client) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sregfs/v1/"+pingVerb, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set(protocolHeader, strconv.Itoa(Protocol))
	resp, err := c.http.Do(r)
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	return resp.Body.Close()
}
