// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
)

const (
	maxPending    = 256             // queued drafts; beyond it close(2) waits for the push
	uploadWorkers = 2               // background pushes at once
	retryFirst    = time.Second     // between two tries
	retryMost     = 5 * time.Minute // after many
	wrongMost     = 4               // tries that the registry stored other bytes of
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
		if d.Target.Async && (d.State == spool.Sealed || d.State == spool.Failed) {
			c.enqueue(d.ID, math.MaxInt) // they have been accepted
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
func (c *Catalog) Standing() []*spool.Draft {
	s, err := c.open()
	if err != nil || s.Spool == nil {
		return nil // whoever needs the state is told why there is none
	}
	var standing []*spool.Draft
	for _, info := range s.Spool.Drafts() {
		if !info.Queued() && info.Target.File == "" {
			continue
		}
		d, err := s.Spool.Standby(info.ID)
		if err != nil {
			c.opts.Log.Warn("a draft cannot be read", "draft", info.ID, "err", err)
			continue
		}
		standing = append(standing, d)
	}
	return standing
}

// enqueue lets a sealed draft be published in the background. It reports false
// if nobody would do so, or most or more wait: then the caller has to.
func (c *Catalog) enqueue(id string, most int) bool {
	u := c.uploads
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, waiting := u.queued[id]; waiting {
		return true
	}
	if !u.started || len(u.queued) >= most {
		return false
	}
	if !c.tasks.start(func(ctx context.Context) { c.publishLater(ctx, id) }) {
		return false
	}
	u.queued[id] = true
	u.changed()
	return true
}

// Pending reports whether a draft is on its way to its registry, or waits for
// another try in the background.
func (c *Catalog) Pending(id string) bool {
	u := c.uploads
	u.mu.Lock()
	defer u.mu.Unlock()
	_, queued := u.queued[id]
	return queued || u.runs[id] != nil
}

// publishLater tries until the draft is published, is gone, or cannot be
// published as it is.
func (c *Catalog) publishLater(ctx context.Context, id string) {
	var gaveUp spool.Target
	s, err := c.open()
	if err == nil {
		if err = c.keepTrying(ctx, s, id); err != nil {
			gaveUp = c.giveUp(s, id, err)
		}
	}
	u := c.uploads
	u.mu.Lock()
	delete(u.queued, id)
	u.changed()
	u.mu.Unlock()
	if r, err := c.Remote(gaveUp.Remote); err == nil { // the name means again what its registry has
		c.outdated(r, gaveUp.Ref)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: gaveUp.Remote, Collection: gaveUp.Ref.Collection})
	}
}

// keepTrying returns nil when the draft needs no more tries.
func (c *Catalog) keepTrying(ctx context.Context, s *State, id string) error {
	u := c.uploads
	delay := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(retryFirst), backoff.WithMaxInterval(retryMost), backoff.WithMaxElapsedTime(0))
	looked, wrong := false, 0
	for {
		err := c.publishTurn(ctx, s, id)
		if errors.Is(err, backends.ErrCorrupt) {
			wrong++
		}
		if (errors.Is(err, backends.ErrCorrupt) || errors.Is(err, backends.ErrBadAnswer)) && !looked {
			// Is it the registry's answer, or what was sent? Many say HTTP 400 to bytes
			// that are not those of their digest.
			looked = true
			err = cmp.Or(rotten(ctx, s, id), err)
		}
		switch {
		case err == nil || ctx.Err() != nil || draftGone(s, id):
			return nil
		case final(err):
			return err
		case wrong == wrongMost:
			// What is here is right: the whole image would be sent for ever.
			return fmt.Errorf("sent %d times, and stored wrongly each time (\"sreg uploads retry\" tries again): %w", wrong, err)
		}
		wait := max(delay.NextBackOff(), backends.RetryAfter(err))
		c.opts.Log.Warn("upload will be tried again", "draft", id, "in", wait.Round(time.Millisecond), "err", err)
		if !u.pause(ctx, id, wait) {
			return nil
		}
	}
}

// rotten returns an error if the data of a draft is not what was sealed any more.
func rotten(ctx context.Context, s *State, id string) error {
	d, err := s.Spool.Draft(id)
	if err != nil {
		return nil //nolint:nilerr // nothing is known of it
	}
	defer shut(d)
	info := d.Info()
	sum, err := digestOf(ctx, io.NewSectionReader(d, 0, info.Size))
	if err == nil && info.Digest != "" && sum != info.Digest {
		return pushError(info.Target.Remote, info.Target.Ref, fmt.Errorf("%w: its data on this disk is %s, not %s", backends.ErrCorrupt, sum, info.Digest))
	}
	return nil
}

// giveUp keeps the draft of an upload in vain, and returns where it was to go. One
// that was refused for what it is is no upload in the background any more: the next
// process would only ask for the same refusal. What the configuration is the reason
// of may be other by then.
func (c *Catalog) giveUp(s *State, id string, cause error) spool.Target {
	c.opts.Log.Error("upload given up; its data is kept (see sreg uploads)", "draft", id, "err", cause)
	d, err := s.Spool.Draft(id)
	if err != nil {
		return spool.Target{}
	}
	defer shut(d)
	target := d.Info().Target
	for _, refusal := range []error{fs.ErrExist, fs.ErrInvalid, backends.ErrChanged, backends.ErrCorrupt} {
		if !errors.Is(cause, refusal) {
			continue
		}
		target.Async = false
		if err := d.Retarget(target); err != nil {
			c.opts.Log.Warn("an upload that was given up will be tried once more at the next start", "draft", id, "err", err)
		}
		break
	}
	return target
}

// publishTurn is Retry when one of the workers is free.
func (c *Catalog) publishTurn(ctx context.Context, s *State, id string) error {
	select {
	case c.uploads.slots <- empty{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.uploads.slots }()
	for _, earlier := range c.earlier(s, id) {
		if err := c.Retry(ctx, earlier, nil); err != nil && !final(err) {
			return err
		}
	}
	return c.Retry(ctx, id, nil)
}

// earlier returns the queued drafts that were made before this one for the same
// name: what was copied last must win.
func (c *Catalog) earlier(s *State, id string) []string {
	var before []string
	var name string
	drafts := s.Spool.Drafts()
	for _, d := range drafts {
		if d.ID == id {
			name = string(index.ImageKey(d.Target.Remote, d.Target.Ref))
		}
	}
	c.uploads.mu.Lock()
	defer c.uploads.mu.Unlock()
	for _, d := range drafts {
		_, waits := c.uploads.queued[d.ID]
		if waits && d.ID < id && string(index.ImageKey(d.Target.Remote, d.Target.Ref)) == name {
			before = append(before, d.ID)
		}
	}
	return before
}

// pause waits before another try; drain does not wait for such drafts.
func (u *uploads) pause(ctx context.Context, id string, wait time.Duration) bool {
	u.mark(id, false)
	if !backends.Pause(ctx, wait, nil) {
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

// final reports whether another try cannot help: the configuration or the draft is
// the reason, or the registry has refused this very push. What an answer only makes
// likely (see doubtful) is not.
func final(err error) bool {
	if _, ok := errors.AsType[*doubtful](err); ok {
		return false
	}
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, fs.ErrNotExist, backends.ErrChanged, backends.ErrReadOnly,
		backends.ErrCorrupt, backends.ErrNotAllowed, errors.ErrUnsupported, cache.ErrClosed, spool.ErrClosed, ErrClosed} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// doubtful is an error of which nobody knows who gave it: the sign-in page of a
// network, or a proxy, answers any question in place of the registry, and tomorrow
// it is not there any more. Only what a registry alone can mean is believed: that the
// tag is taken, or that it does not want this image.
type doubtful struct{ error }

// Unwrap returns the cause.
func (d *doubtful) Unwrap() error { return d.error }

// judged marks as doubtful what a registry, or somebody in its place, answered to a
// push.
func judged(err error) error {
	for _, target := range []error{fs.ErrExist, fs.ErrInvalid, backends.ErrChanged} {
		if errors.Is(err, target) {
			return err
		}
	}
	return &doubtful{err}
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
