// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// ErrClosed is the error of a closed catalogue.
var ErrClosed = errors.New("catalog: closed")

// tasks is the work in the background. All of it ends when the catalogue is closed.
type tasks struct {
	log     *slog.Logger
	mu      sync.Mutex // guards the fields below
	stopped bool
	next    int
	cancels map[int]context.CancelFunc
	wg      sync.WaitGroup
}

// guarded returns f for an errgroup, with a panic turned into an error.
func guarded(log *slog.Logger, f func() error) func() error {
	return func() error { return backends.Guard(log, f) }
}

// run calls f with a context that ends when the tasks are stopped.
// Errors: ErrClosed if they are already.
func (t *tasks) run(f func(ctx context.Context) error) error {
	ctx, done, err := t.begin()
	if err != nil {
		return err
	}
	defer done()
	return f(ctx)
}

// start calls f as run does, in a goroutine of its own. It reports whether f will be called.
func (t *tasks) start(f func(ctx context.Context)) bool {
	ctx, done, err := t.begin()
	if err != nil {
		return false
	}
	go func() {
		defer done()
		defer backends.Catch(t.log)
		f(ctx)
	}()
	return true
}

func (t *tasks) begin() (context.Context, func(), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(context.Background())
	if t.cancels == nil {
		t.cancels = make(map[int]context.CancelFunc)
	}
	id := t.next
	t.next++
	t.cancels[id] = cancel
	t.wg.Add(1)
	return ctx, func() {
		cancel()
		t.mu.Lock()
		delete(t.cancels, id)
		t.mu.Unlock()
		t.wg.Done()
	}, nil
}

// stop cancels all tasks and waits for them.
func (t *tasks) stop() {
	t.mu.Lock()
	t.stopped = true
	for _, cancel := range t.cancels {
		cancel()
	}
	t.mu.Unlock()
	t.wg.Wait()
}
