// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

const (
	maxPending    = 256             // queued drafts; beyond it close(2) waits for the push
	uploadWorkers = 2               // background pushes at once
	retryFirst    = time.Second     // between two tries
	retryMost     = 5 * time.Minute // after many
)

// startUploads takes up what an earlier process left, and sweeps the spool once
// an hour until ctx ends.
func (c *Catalog) startUploads(ctx context.Context) {
	s := c.state.Load()
	if s == nil || s.Spool == nil {
		return
	}
	c.uploads.mu.Lock()
	c.uploads.started = true
	c.uploads.mu.Unlock()
	for _, d := range s.Spool.Drafts() {
		if d.Target.Async && (d.State == cache.Sealed || d.State == cache.Failed) {
			c.enqueue(d.ID)
		}
	}
	c.tasks.start(func(own context.Context) {
		tick := time.NewTicker(time.Hour)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.Spool.Sweep()
			case <-ctx.Done():
				return
			case <-own.Done():
				return
			}
		}
	})
}

// Standing opens the drafts that are files of the tree, the oldest first, those that
// an earlier process left among them: they wait to be published in the background, or
// have a name that is no image's. It opens the state. The caller closes them.
func (c *Catalog) Standing() []*cache.Draft {
	s, err := c.open()
	if err != nil || s.Spool == nil {
		return nil // whoever needs the state is told why there is none
	}
	var standing []*cache.Draft
	for _, info := range s.Spool.Drafts() {
		if !info.Queued() && info.Target.File == "" {
			continue
		}
		d, err := s.Spool.Draft(info.ID)
		if err != nil {
			c.opts.Log.Warn("a draft cannot be read", "draft", info.ID, "err", err)
			continue
		}
		standing = append(standing, d)
	}
	return standing
}

// enqueue lets a sealed draft be published in the background. It reports false
// if nobody would do so, or too many wait: then the caller has to.
func (c *Catalog) enqueue(id string) bool {
	u := c.uploads
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, waiting := u.queued[id]; waiting {
		return true
	}
	if !u.started || len(u.queued) >= maxPending {
		return false
	}
	if !c.tasks.start(func(ctx context.Context) { c.publishLater(ctx, id) }) {
		return false
	}
	u.queued[id] = true
	u.changed()
	return true
}

// publishLater tries until the draft is published, is gone, or cannot be
// published as it is.
func (c *Catalog) publishLater(ctx context.Context, id string) {
	u := c.uploads
	defer func() {
		u.mu.Lock()
		delete(u.queued, id)
		u.changed()
		u.mu.Unlock()
	}()
	s, err := c.open()
	if err != nil {
		return
	}
	delay := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(retryFirst), backoff.WithMaxInterval(retryMost), backoff.WithMaxElapsedTime(0))
	for {
		err := c.publishTurn(ctx, s, id)
		switch {
		case err == nil || ctx.Err() != nil || draftGone(s, id):
			return
		case final(err):
			c.opts.Log.Error("upload given up; its data is kept", "draft", id, "err", err)
			return
		}
		wait := max(delay.NextBackOff(), backends.RetryAfter(err))
		c.opts.Log.Warn("upload will be tried again", "draft", id, "in", wait.Round(time.Millisecond), "err", err)
		if !u.pause(ctx, id, wait) {
			return
		}
	}
}

// publishTurn is publishNow when one of the workers is free.
func (c *Catalog) publishTurn(ctx context.Context, s *State, id string) error {
	select {
	case c.uploads.slots <- empty{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.uploads.slots }()
	for _, earlier := range c.earlier(s, id) {
		if err := c.publishNow(ctx, earlier, nil); err != nil && !final(err) {
			return err
		}
	}
	return c.publishNow(ctx, id, nil)
}

// earlier returns the queued drafts that were made before this one for the same
// name: what was copied last must win.
func (c *Catalog) earlier(s *State, id string) []string {
	var before []string
	var name string
	drafts := s.Spool.Drafts()
	for _, d := range drafts {
		if d.ID == id {
			name = string(imageKey(d.Target.Remote, d.Target.Ref))
		}
	}
	c.uploads.mu.Lock()
	defer c.uploads.mu.Unlock()
	for _, d := range drafts {
		_, waits := c.uploads.queued[d.ID]
		if waits && d.ID < id && string(imageKey(d.Target.Remote, d.Target.Ref)) == name {
			before = append(before, d.ID)
		}
	}
	return before
}

// pause waits before another try; drain does not wait for such drafts.
func (u *uploads) pause(ctx context.Context, id string, wait time.Duration) bool {
	u.mark(id, false)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	u.mark(id, true)
	return true
}

func (u *uploads) mark(id string, active bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queued[id] = active
	u.changed()
}

// final reports whether another try cannot help.
func final(err error) bool {
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, fs.ErrNotExist, backends.ErrChanged, backends.ErrReadOnly,
		backends.ErrCorrupt, backends.ErrNotAllowed, errors.ErrUnsupported, cache.ErrClosed, ErrClosed} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// drain waits for all uploads that make progress until ctx ends.
func (u *uploads) drain(ctx context.Context) {
	for {
		u.mu.Lock()
		busy := len(u.runs)
		for _, active := range u.queued {
			if active {
				busy++
			}
		}
		change := u.change
		u.mu.Unlock()
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
