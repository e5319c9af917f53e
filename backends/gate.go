// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"sync"
)

// A gate limits how much a client does at once. Bodies, which stay open for as
// long as somebody reads them, leave some of the slots to short requests: a
// listing need not wait for a download.
type gate struct {
	all, bodies chan struct{}
}

func newGate(n int) *gate {
	reserved := 0
	if n > 1 {
		reserved = max(1, n/4)
	}
	return &gate{all: make(chan struct{}, n), bodies: make(chan struct{}, n-reserved)}
}

// enter waits for a slot. Errors: ctx's.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	return take(ctx, g.all)
}

// enterBody is enter for a request whose body stays open.
func (g *gate) enterBody(ctx context.Context) (leave func(), err error) {
	leaveBodies, err := take(ctx, g.bodies)
	if err != nil {
		return nil, err
	}
	leaveAll, err := take(ctx, g.all)
	if err != nil {
		leaveBodies()
		return nil, err
	}
	return func() { leaveAll(); leaveBodies() }, nil
}

// take returns a function that gives the slot back; further calls do nothing.
func take(ctx context.Context, slots chan struct{}) (func(), error) {
	select {
	case slots <- struct{}{}:
		return sync.OnceFunc(func() { <-slots }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
