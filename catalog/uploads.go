// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// How long one who gave up waits for a push to end, so that it can be told
// whether the registry has the image after all.
const giveUpWait = 5 * time.Second

// uploads are who pushes which draft and who waits for it. How far a draft has come is
// the spool's to know, see spool.State. Make one with newUploads.
type uploads struct {
	slots     chan empty     // one for each background push at work
	turns     backends.Locks // by name: one push to a name at a time
	published atomic.Int64   // counts what was published, before rebase looks for who must know

	mu      sync.Mutex // guards the fields below
	started bool
	runs    map[string]*run // by draft ID
	queued  map[string]bool // by draft ID; false while it waits for another try
	change  chan empty      // closed and replaced at each change of runs and queued
}

type empty = struct{}

func newUploads() *uploads {
	return &uploads{
		slots:  make(chan empty, uploadWorkers),
		runs:   make(map[string]*run),
		queued: make(map[string]bool),
		change: make(chan empty),
	}
}

// A run is one try to publish, which all who want it wait for.
type run struct {
	done   chan empty
	err    error // valid after done
	cancel context.CancelFunc

	// Guarded by uploads.mu:
	waiters int
	gaveUp  bool // nobody waits any more: it is being broken off
	stopped bool // its draft is being given up
	listen  []Progress
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *run) told(u *uploads) Progress {
	return func(done, total int64) {
		u.mu.Lock()
		listen := r.listen
		u.mu.Unlock()
		for _, p := range listen {
			p(done, total)
		}
	}
}

// changed wakes drain. mu is held.
func (u *uploads) changed() {
	close(u.change)
	u.change = make(chan empty)
}

// publishNow publishes a sealed draft, or joins whoever does, and waits. Should all who
// wait give up, the push is broken off.
func (c *Catalog) publishNow(ctx context.Context, d *spool.Draft, p Progress) error {
	for {
		r, err := c.joinRun(d, p)
		if err != nil {
			return err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return c.leaveRun(ctx, r, d.Info().ID)
		}
		c.uploads.mu.Lock()
		brokenOff := r.gaveUp
		c.uploads.mu.Unlock()
		if r.err == nil || !brokenOff {
			return r.err
		}
		// Joined in the moment when all others left: begin again.
	}
}

// leaveRun is what a caller does that does not want to wait any more.
func (c *Catalog) leaveRun(ctx context.Context, r *run, id string) error {
	u := c.uploads
	u.mu.Lock()
	r.waiters--
	last := r.waiters == 0
	r.gaveUp = r.gaveUp || last
	u.mu.Unlock()
	if last {
		r.cancel()
		backends.Pause(context.WithoutCancel(ctx), giveUpWait, r.done)
		if r.ended() && !errors.Is(r.err, context.Canceled) {
			return r.err // it may be published after all
		}
	}
	return fmt.Errorf("publish draft %s: %w", id, ctx.Err())
}

// joinRun returns the run of a draft, which it begins if there is none.
func (c *Catalog) joinRun(d *spool.Draft, p Progress) (*run, error) {
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	u, id := c.uploads, d.Info().ID
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := d.Withdrawn(); err != nil {
		return nil, err
	}
	r := u.runs[id]
	if r == nil {
		if r, err = c.beginRun(s, d); err != nil {
			return nil, err
		}
		u.runs[id] = r
		u.changed()
	}
	r.waiters++
	if p != nil {
		r.listen = append(r.listen, p)
	}
	return r, nil
}

// beginRun starts a run, which has a handle of its own: whoever began it need not wait
// for its end.
func (c *Catalog) beginRun(s *State, d *spool.Draft) (*run, error) {
	ctx, done, err := c.tasks.begin()
	if err != nil {
		return nil, err
	}
	own, err := d.Share()
	if err != nil {
		done()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &run{done: make(chan empty), cancel: cancel}
	go func() {
		defer done()
		defer cancel()
		err := backends.Guard(c.opts.Log, func() error { return c.upload(ctx, s, own, r) })
		shut(own)
		c.uploads.ended(r, d.Info().ID, err)
	}()
	return r, nil
}

// ended tells those who wait how a run has ended.
func (u *uploads) ended(r *run, id string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r.err = err; err != nil && r.stopped {
		r.err = backends.NotFound("draft %s was discarded", id)
	}
	delete(u.runs, id)
	u.changed()
	close(r.done)
}

// Retry publishes a failed, pending or incomplete upload now, and waits for it.
// Errors: fs.ErrNotExist if there is no such draft; fs.ErrInvalid for a file whose
// name is no image's; those of Publish.
func (c *Catalog) Retry(ctx context.Context, id string, p Progress) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	d, err := s.Spool.Draft(id)
	if err != nil {
		return err
	}
	defer shut(d)
	target := d.Info().Target
	if target.File != "" {
		return fmt.Errorf("upload %s: %q is no image's name: rename the file in the mount: %w", id, target.File, fs.ErrInvalid)
	}
	if _, err := d.Seal(ctx, gate(target)); err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	return c.publishNow(ctx, d, p)
}

// draftGone reports whether a draft was published or discarded meanwhile.
func draftGone(s *State, id string) bool {
	d, err := s.Spool.Draft(id)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	shut(d)
	return false
}
