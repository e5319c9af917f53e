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

// A signal ends a wait for a disk only if it ends the process (signal(7): handlers do not
// interrupt such waits), and programs rely on that: few retry a stat or a read. But the
// kernel interrupts a FUSE request for any signal: the SIGURG with which Go's runtime
// preempts, a SIGCHLD, a SIGWINCH. It does so once for each request, so a Ctrl-C after a
// SIGWINCH sends no second interrupt. Therefore an interrupted request goes on until a
// stop signal is pending for its caller.

// stopSignals are HUP, INT, QUIT, KILL and TERM, handled or not. One that is not handled
// becomes SIGKILL for each thread (kernel/signal.c, complete_signal).
const stopSignals = 1<<(syscall.SIGHUP-1) | 1<<(syscall.SIGINT-1) | 1<<(syscall.SIGQUIT-1) |
	1<<(syscall.SIGKILL-1) | 1<<(syscall.SIGTERM-1)

// stopPoll is how often an interrupted caller is looked at.
const stopPoll = 50 * time.Millisecond

// A waitContext is the context of a request that may have to wait. It ends when a stop
// signal is pending for the caller. It starts a goroutine only once Done is called.
type waitContext struct {
	context.Context //nolint:containedctx // it is one

	mu    sync.Mutex    // guards the fields below
	over  chan struct{} // closed when the request is; made with done
	done  chan struct{} // closed when the caller wants to stop; nil while nobody asked
	ended bool
}

// waitable returns the context for an operation that may have to wait. The caller calls
// end when the operation is done.
func waitable(ctx context.Context) (waiting context.Context, end func()) {
	p := &waitContext{Context: ctx}
	return p, p.end
}

func (p *waitContext) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.over != nil {
		close(p.over)
	}
}

// Done implements context.Context.
func (p *waitContext) Done() <-chan struct{} {
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
func (p *waitContext) Err() error {
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
func (p *waitContext) watch(over <-chan struct{}, done chan<- struct{}) {
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

// wantsToStop reports whether a stop signal is pending for the thread that made the
// request. For a thread that cannot be seen (in another pid namespace, or ended) it
// returns true.
func wantsToStop(ctx context.Context) bool {
	c, ok := fuse.FromContext(ctx)
	if !ok || c.Pid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(c.Pid), 10) + "/status")
	if err != nil {
		return true
	}
	return pendingSignals(string(status))&stopSignals != 0
}

// pendingSignals parses the signals that are pending for a thread and for its process from
// /proc/TID/status. If it cannot, it returns all signals.
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
