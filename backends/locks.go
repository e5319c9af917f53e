// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"sync"
)

// Locks are one lock for each key. The zero value has none.
type Locks struct {
	mu   sync.Mutex // guards the field below
	held map[string]chan struct{}
}

// Lock waits for the lock of key, or for the end of ctx.
// Errors: ctx's.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		held, busy := l.held[key]
		if !busy {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
