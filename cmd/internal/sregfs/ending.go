// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
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
	begun   atomic.Bool
	signals chan os.Signal
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
	for sig := range e.signals {
		switch {
		case sig == syscall.SIGHUP:
			select {
			case e.hangups <- struct{}{}:
			default: // one is waiting
			}
		case e.asked.Err() == nil && !e.begun.Load():
			e.ask(errors.New("signal: " + sig.String()))
		default:
			os.Exit(exit.Interrupted)
		}
	}
}

// begin is called once nothing is to be done any more but to end. A disk that takes no
// writes, or a file system that hangs, must not keep the process for ever.
func (e *ending) begin(uploads time.Duration, log *slog.Logger) {
	if e.begun.Swap(true) {
		return
	}
	time.AfterFunc(uploads+endGrace, func() {
		log.Error("the end takes too long: what was acknowledged is on the disk, the rest is left as after a crash", "after", uploads+endGrace)
		os.Exit(exit.Failed)
	})
}
