// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
)

// How long a caller that gave up waits for the push to end, to learn whether the registry
// has the image after all.
const giveUpWait = 5 * time.Second

// runs are the drafts that are being published, with the callers of each, and the
// drafts that wait in the queue. The spool keeps the state of a draft, see
// spool.State.
type runs struct {
	background func(func(context.Context)) bool // see catalog.Catalog.Go
	upload     func(context.Context, *spool.Draft, catalog.Progress) error
	log        *slog.Logger

	mu      sync.Mutex // guards the fields below
	started bool       // there is a queue
	runs    map[string]*run
	queued  map[string]bool // by draft ID; false while it waits for another try
	change  chan struct{}   // closed and replaced at each change of runs and queued
}

// A run is one try to publish a draft. All callers that want that wait for it.
type run struct {
	done   chan struct{}
	err    error // valid after done
	cancel context.CancelFunc

	// Guarded by runs.mu:
	waiters int
	gaveUp  bool // nobody waits any more: it is being canceled
	stopped bool // its draft is being given up
	listen  []catalog.Progress
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// progress returns the function that reports to all callers of a run.
func (rs *runs) progress(r *run) catalog.Progress {
	return func(done, total int64) {
		rs.mu.Lock()
		listen := r.listen
		rs.mu.Unlock()
		for _, p := range listen {
			p(done, total)
		}
	}
}

// changed wakes drain. mu is held.
func (rs *runs) changed() {
	close(rs.change)
	rs.change = make(chan struct{})
}

// publish publishes a sealed draft, or joins the run that does, and waits. When all
// callers have given up, the push is canceled.
func (rs *runs) publish(ctx context.Context, d *spool.Draft, p catalog.Progress) error {
	for {
		r, err := rs.join(d, p)
		if err != nil {
			return err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return rs.leave(ctx, r, d.Info().ID)
		}
		rs.mu.Lock()
		canceled := r.gaveUp
		rs.mu.Unlock()
		if r.err == nil || !canceled {
			return r.err
		}
		// Joined in the moment when all others left: begin again.
	}
}

// leave ends the wait of one caller.
func (rs *runs) leave(ctx context.Context, r *run, id string) error {
	rs.mu.Lock()
	r.waiters--
	last := r.waiters == 0
	r.gaveUp = r.gaveUp || last
	rs.mu.Unlock()
	if last {
		r.cancel()
		backends.Pause(context.WithoutCancel(ctx), giveUpWait, r.done)
		if r.ended() && !errors.Is(r.err, context.Canceled) {
			return r.err // success, or why it failed before
		}
	}
	return fmt.Errorf("publish draft %s: %w", id, ctx.Err())
}

// join returns the run of a draft, which it begins if there is none.
func (rs *runs) join(d *spool.Draft, p catalog.Progress) (*run, error) {
	id := d.Info().ID
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if err := d.Withdrawn(); err != nil {
		return nil, err
	}
	r := rs.runs[id]
	if r == nil {
		var err error
		if r, err = rs.begin(d); err != nil {
			return nil, err
		}
		rs.runs[id] = r
		rs.changed()
	}
	r.waiters++
	if p != nil {
		r.listen = append(r.listen, p)
	}
	return r, nil
}

// begin starts a run, which has a handle of its own: its caller need not wait for its
// end. mu is held.
func (rs *runs) begin(d *spool.Draft) (*run, error) {
	own, err := d.Share()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{done: make(chan struct{}), cancel: cancel}
	started := rs.background(func(catalogue context.Context) {
		defer cancel()
		defer context.AfterFunc(catalogue, cancel)()
		err := backends.Guard(rs.log, func() error { return rs.upload(ctx, own, rs.progress(r)) })
		shut(own)
		rs.ended(r, d.Info().ID, err)
	})
	if !started {
		cancel()
		shut(own)
		return nil, catalog.ErrClosed
	}
	return r, nil
}

// ended gives the callers of a run its result.
func (rs *runs) ended(r *run, id string, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.err = err; err != nil && r.stopped {
		r.err = backends.NotFound("draft %s was discarded", id)
	}
	delete(rs.runs, id)
	rs.changed()
	close(r.done)
}

// stop returns the run of a draft, nil if there is none. It cancels it if it may.
func (rs *runs) stop(id string, may bool) *run {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.runs[id]
	if r != nil && may {
		r.stopped = true
		r.cancel()
	}
	return r
}

// pending reports whether a draft is being published, or is in the queue: any may be until
// the queue is open.
func (rs *runs) pending(id string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	_, queued := rs.queued[id]
	return !rs.started || queued || rs.runs[id] != nil
}

// enqueue has work done in the background for a sealed draft. It reports false if there
// is no queue, or if most or more wait in it: then the caller has to publish.
func (rs *runs) enqueue(id string, most int, work func(context.Context)) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if _, waiting := rs.queued[id]; waiting {
		return true
	}
	return rs.started && len(rs.queued) < most && rs.enqueueLocked(id, work)
}

// enqueueLocked needs mu.
func (rs *runs) enqueueLocked(id string, work func(context.Context)) bool {
	if !rs.background(work) {
		return false
	}
	rs.queued[id] = true
	rs.changed()
	return true
}

// dequeue is the end of enqueue.
func (rs *runs) dequeue(id string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.queued, id)
	rs.changed()
}

// mark says whether a queued draft is at work or waits for another try.
func (rs *runs) mark(id string, active bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.queued[id] = active
	rs.changed()
}

// pause waits before another try; drain does not wait for such drafts.
func (rs *runs) pause(ctx context.Context, id string, wait time.Duration) bool {
	rs.mark(id, false)
	if !backends.Pause(ctx, wait, nil) {
		return false
	}
	rs.mark(id, true)
	return true
}

// drain waits for all uploads that make progress until ctx ends.
func (rs *runs) drain(ctx context.Context) {
	for {
		rs.mu.Lock()
		busy := len(rs.runs)
		for _, active := range rs.queued {
			if active {
				busy++
			}
		}
		change := rs.change
		rs.mu.Unlock()
		if busy == 0 {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			return
		}
	}
}
