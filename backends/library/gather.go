// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"iter"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// listRequests is how many requests of a listing are under way at once.
const listRequests = 16

// gather yields what fetch makes of each id, in the order of ids, and asks for
// several at once. However many they are, a few are in memory.
func gather[T any](ctx context.Context, ids []string, fetch func(ctx context.Context, id string) (T, error)) iter.Seq2[T, error] {
	type answer struct {
		v   T
		err error
	}
	return func(yield func(T, error) bool) {
		var group sync.WaitGroup
		defer group.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var running []chan answer
		for rest := ids; len(rest) > 0 || len(running) > 0; {
			for len(rest) > 0 && len(running) < listRequests {
				id, to := rest[0], make(chan answer, 1)
				rest, running = rest[1:], append(running, to)
				group.Go(func() { // ends with its one request
					var a answer
					a.err = backends.Guard(nil, func() (err error) { a.v, err = fetch(ctx, id); return err })
					to <- a
				})
			}
			first := <-running[0]
			running = running[1:]
			if !yield(first.v, backends.Raise(first.err)) || first.err != nil {
				return
			}
		}
	}
}
