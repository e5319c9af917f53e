// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// An ending is how the process comes to its end: the first signal asks it to, the
// second one ends it at once, and so does time. What was acknowledged is on the
// disk whichever it is.
type ending struct {
	asked   context.Context //nolint:containedctx // of the process; done once a signal asks for the end
	ask     context.CancelCauseFunc
	hangups chan struct{}
	signals chan os.Signal

	mu    sync.Mutex  // guards the fields below
	by    time.Time   // when uploads must be through; zero before begin
	limit *time.Timer // ends the process; nil before begin, and while files are served
}

// endGrace is how long all may take that is not uploads: unmounting, saving the
// index.
const endGrace = 30 * time.Second

func newEnding(ctx context.Context) *ending {
	e := &ending{hangups: make(chan struct{}, 1), signals: make(chan os.Signal, 4)}
	e.asked, e.ask = context.WithCancelCause(ctx)
	signal.Notify(e.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go e.listen() // ends with forget
	return e
}

func (e *ending) forget() {
	signal.Stop(e.signals)
	close(e.signals)
	e.ask(nil)
}

func (e *ending) listen() {
	signalled := false
	for sig := range e.signals {
		switch {
		case sig == syscall.SIGHUP:
			select {
			case e.hangups <- struct{}{}:
			default: // one is waiting
			}
		case !signalled:
			signalled = true
			e.ask(errors.New("signal: " + sig.String()))
		default:
			os.Exit(exit.Interrupted)
		}
	}
}

// begin is called when there is nothing to do any more but to end. It returns when what
// is being written and uploaded must be through; endGrace later the process ends: a disk
// that takes no writes, or a file system that hangs, must not keep it for ever. pause
// takes that back until the next begin.
func (e *ending) begin(uploads time.Duration, log *slog.Logger) (by time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by.IsZero() {
		e.by = time.Now().Add(uploads)
	}
	if e.limit == nil {
		limit := max(time.Until(e.by), 0) + endGrace
		e.limit = time.AfterFunc(limit, func() {
			log.Error("the end takes too long: what was acknowledged is on the disk, the rest is left as after a crash", "after", limit)
			os.Exit(exit.Failed)
		})
	}
	return e.by
}

func (e *ending) pause() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.limit != nil {
		e.limit.Stop()
		e.limit = nil
	}
}

// begun returns when uploads must be through; zero before begin.
func (e *ending) begun() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.by
}
