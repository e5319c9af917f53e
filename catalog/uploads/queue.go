// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

const (
	maxPending    = 256             // queued drafts; beyond it close(2) waits for the push
	uploadWorkers = 2               // background pushes at once
	retryFirst    = time.Second     // between two tries
	retryMost     = 5 * time.Minute // after many
	wrongMost     = 4               // tries of which the registry stored other bytes
)

// A queue publishes drafts in the background, a few at once, until their registries have
// them or refuse them.
type queue struct {
	cat     *catalog.Catalog
	log     *slog.Logger
	runs    *runs
	publish func(ctx context.Context, id string, p catalog.Progress) error
	slots   chan struct{} // one for each background push at work
}

// add lets a sealed draft be published in the background. It reports false if
// Start was not called, or if most or more wait: then the caller has to.
func (q *queue) add(id string, most int) bool {
	return q.runs.enqueue(id, most, func(ctx context.Context) { q.publishLater(ctx, id) })
}

// start opens the queue, with the drafts in it that an earlier process left.
func (q *queue) start(ids []string) {
	rs := q.runs
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.started = true
	for _, id := range ids {
		rs.enqueueLocked(id, func(ctx context.Context) { q.publishLater(ctx, id) })
	}
}

// publishLater tries until the draft is published, is gone, or cannot be
// published as it is.
func (q *queue) publishLater(ctx context.Context, id string) {
	var gaveUp spool.Target
	s, err := q.cat.State()
	if err == nil {
		if err = q.keepTrying(ctx, s, id); err != nil {
			gaveUp = q.giveUp(s, id, err)
		}
	}
	q.runs.dequeue(id)
	if r, err := q.cat.Remote(gaveUp.Remote); err == nil { // the tree shows again what the registry has
		q.cat.Outdated(r, gaveUp.Ref)
		q.cat.Tell(catalog.Event{Kind: catalog.ListingChanged, Remote: gaveUp.Remote, Collection: gaveUp.Ref.Collection})
	}
}

// keepTrying returns nil when the draft needs no more tries.
func (q *queue) keepTrying(ctx context.Context, s *catalog.State, id string) error {
	delay := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(retryFirst), backoff.WithMaxInterval(retryMost), backoff.WithMaxElapsedTime(0))
	looked, wrong := false, 0
	for {
		err := q.publishTurn(ctx, s, id)
		if errors.Is(err, backends.ErrCorrupt) {
			wrong++
		}
		if (errors.Is(err, backends.ErrCorrupt) || errors.Is(err, backends.ErrBadAnswer)) && !looked {
			// Is the registry wrong, or what was sent? Many answer HTTP 400 if the bytes do
			// not match their digest.
			looked = true
			err = cmp.Or(damaged(ctx, s, id), err)
		}
		switch {
		case err == nil || ctx.Err() != nil || draftGone(s, id):
			return nil
		case final(err):
			return err
		case wrong == wrongMost:
			// The data here is right: without a limit the image would be sent for ever.
			return fmt.Errorf("sent %d times, and stored wrongly each time (\"sreg uploads retry\" tries again): %w", wrong, err)
		}
		wait := max(delay.NextBackOff(), backends.RetryAfter(err))
		q.log.Warn("upload will be tried again", "draft", id, "in", wait.Round(time.Millisecond), "err", err)
		if !q.runs.pause(ctx, id, wait) {
			return nil
		}
	}
}

// damaged returns an error if the data of a draft is no longer what was sealed.
func damaged(ctx context.Context, s *catalog.State, id string) error {
	d, err := s.Spool.Draft(id)
	if err != nil {
		return nil //nolint:nilerr // nothing is known of it
	}
	defer shut(d)
	info := d.Info()
	sum, err := Digest(ctx, io.NewSectionReader(d, 0, info.Size))
	if err == nil && info.Digest != "" && sum != info.Digest {
		return pushError(info.Target.Remote, info.Target.Ref, fmt.Errorf("%w: its data on this disk is %s, not %s", backends.ErrCorrupt, sum, info.Digest))
	}
	return nil
}

// giveUp keeps the draft of an upload that failed for good, and returns its target. If the
// image itself was refused, it is no longer published in the background: the next process
// would get the same refusal. If the configuration was the reason, it may have changed
// by then.
func (q *queue) giveUp(s *catalog.State, id string, cause error) spool.Target {
	q.log.Error("upload given up; its data is kept (see sreg uploads)", "draft", id, "err", cause)
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
			q.log.Warn("an upload that was given up will be tried once more at the next start", "draft", id, "err", err)
		}
		break
	}
	return target
}

// publishTurn publishes when one of the workers is free.
func (q *queue) publishTurn(ctx context.Context, s *catalog.State, id string) error {
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.slots }()
	for _, earlier := range q.earlier(s, id) {
		if err := q.publish(ctx, earlier, nil); err != nil && !final(err) {
			return err
		}
	}
	return q.publish(ctx, id, nil)
}

// earlier returns the queued drafts for the same name that are older than this one: the
// last copy must win.
func (q *queue) earlier(s *catalog.State, id string) []string {
	var before []string
	var name string
	drafts := s.Spool.Drafts()
	for _, d := range drafts {
		if d.ID == id {
			name = string(index.ImageKey(d.Target.Remote, d.Target.Ref))
		}
	}
	q.runs.mu.Lock()
	defer q.runs.mu.Unlock()
	for _, d := range drafts {
		_, waits := q.runs.queued[d.ID]
		if waits && d.ID < id && string(index.ImageKey(d.Target.Remote, d.Target.Ref)) == name {
			before = append(before, d.ID)
		}
	}
	return before
}

// draftGone reports whether a draft was published or discarded meanwhile.
func draftGone(s *catalog.State, id string) bool {
	d, err := s.Spool.Draft(id)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	shut(d)
	return false
}
