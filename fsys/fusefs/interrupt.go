// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A signal ends a wait for a disk only if it ends the process (signal(7): such
// waits are not interrupted by handlers), and programs rely on it: few retry a
// stat or a read. The kernel interrupts a FUSE request for any signal, though:
// for the SIGURG with which Go's runtime preempts, for a SIGCHLD, a SIGWINCH. And
// it does so once, so a Ctrl-C after a SIGWINCH is not told. So an interrupted
// request goes on until its caller has a signal waiting that means "stop".

// stopping are the signals that do, handled or not: HUP, INT, QUIT, KILL, TERM.
// One that is not handled is SIGKILL for each thread (kernel/signal.c,
// complete_signal).
const stopping = 1<<(syscall.SIGHUP-1) | 1<<(syscall.SIGINT-1) | 1<<(syscall.SIGQUIT-1) |
	1<<(syscall.SIGKILL-1) | 1<<(syscall.SIGTERM-1)

// stopPoll is how often an interrupted caller is looked at.
const stopPoll = 50 * time.Millisecond

// A patient is the context of a request that may have to wait. It ends when the
// caller wants to stop, and costs next to nothing unless somebody waits for that.
type patient struct {
	context.Context //nolint:containedctx // it is one

	mu    sync.Mutex    // guards the fields below
	over  chan struct{} // closed when the request is; made with done
	done  chan struct{} // closed when the caller wants to stop; nil while nobody asked
	ended bool
}

// await returns the context for an operation that may have to wait, and what to
// call at its end.
func await(ctx context.Context) (waiting context.Context, end func()) {
	p := &patient{Context: ctx}
	return p, p.end
}

func (p *patient) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.over != nil {
		close(p.over)
	}
}

// Done implements context.Context.
func (p *patient) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = make(chan struct{})
		if !p.ended {
			p.over = make(chan struct{})
			go p.watch(p.over, p.done)
		}
	}
	return p.done
}

// Err implements context.Context.
func (p *patient) Err() error {
	if p.Context.Err() == nil {
		return nil
	}
	select {
	case <-p.Done():
		return context.Canceled
	default:
		return nil
	}
}

// watch ends with the request.
func (p *patient) watch(over <-chan struct{}, done chan<- struct{}) {
	select {
	case <-over:
		return
	case <-p.Context.Done():
	}
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for !wantsToStop(p.Context) {
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
	close(done)
}

// wantsToStop reports whether the thread that made the request has a signal
// waiting that means so. Of one that cannot be looked at (another pid namespace,
// or gone) it is assumed.
func wantsToStop(ctx context.Context) bool {
	c, ok := fuse.FromContext(ctx)
	if !ok || c.Pid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(c.Pid), 10) + "/status")
	if err != nil {
		return true
	}
	return pendingSignals(string(status))&stopping != 0
}

// pendingSignals reads what waits for a thread, and for its process, from
// /proc/TID/status. What cannot be read counts as all signals.
func pendingSignals(status string) uint64 {
	var all uint64
	for _, field := range []string{"\nSigPnd:", "\nShdPnd:"} {
		_, rest, ok := strings.Cut(status, field)
		line, _, _ := strings.Cut(rest, "\n")
		set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
		if !ok || err != nil {
			return ^uint64(0)
		}
		all |= set
	}
	return all
}
