// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"sync"
)

// turns let one push to a name go on at a time. The zero value is ready.
type turns struct {
	mu   sync.Mutex               // guards the field below
	busy map[string]chan struct{} // by name; closed when its turn ends
}

// wait returns when nobody else pushes to that name. The caller ends its turn with
// release. Errors: ctx's.
func (t *turns) wait(ctx context.Context, name string) (release func(), err error) {
	for {
		t.mu.Lock()
		busy, taken := t.busy[name]
		if !taken {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = make(map[string]chan struct{})
			}
			t.busy[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, name)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
