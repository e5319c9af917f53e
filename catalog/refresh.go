// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

const (
	maxListing   = 1_000_000 // entries of one collection; a service may be endless
	listingBatch = 512       // entries that are compared and stored at once
	// A listing that goes on ends after this many times Options.Timeout; without
	// a new entry, nor a byte of an answer, it ends after one.
	listingTimeouts = 20
)

// Refresh asks the registry for a collection's listing now and stores it. A
// refresh under way is joined. What is stored stays as it is when the registry
// does not answer.
//
// Errors: those of backends.Lister.
func (c *Catalog) Refresh(ctx context.Context, remote, collection string) error {
	r, err := c.Live(remote)
	if err != nil {
		return err
	}
	if r.Local() {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
		return nil
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	return c.join(ctx, s, r, collection)
}

// refreshLater refreshes behind the caller's back, unless that went wrong just now.
func (c *Catalog) refreshLater(r Remote, collection string) {
	s, err := c.store()
	if err != nil || r.Client == nil || c.failed.recent(string(index.HeaderKey(r.Name, collection)), c.Now()) != nil {
		return
	}
	c.tasks.start(func(ctx context.Context) {
		err := c.join(ctx, s, r, collection)
		if h, ok := s.Header(r.Name, collection); err == nil && ok && h.Fetched.IsZero() {
			err = c.join(ctx, s, r, collection) // what was joined was older than the change
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			c.opts.Log.Debug("listing not refreshed", "err", err)
		}
	})
}

// join makes a listing, or waits for the one being made. The work does not end
// with ctx: others may wait for it, and half a listing is of no use.
func (c *Catalog) join(ctx context.Context, s *index.Index, r Remote, collection string) error {
	key := string(index.HeaderKey(r.Name, collection))
	done := c.listing.DoChan(key, func() (any, error) {
		return nil, c.tasks.run(func(ctx context.Context) error {
			asked := c.Now()
			defer c.own.ask(asked)()
			err := c.relist(ctx, s, r, collection, asked)
			c.Note(r.Name, err)
			switch {
			case err == nil, collection != "" && c.own.since(index.ChildKey(r.Name, collection), asked):
				c.failed.drop(key)
			case !errors.Is(err, context.Canceled):
				c.failed.add(key, err, c.Now().Add(c.failureLife(err)))
			}
			return err
		})
	})
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return listError(r.Name, collection, ctx.Err())
	}
}

// failureLife is how long the registry is not asked again what it answered with err.
func (c *Catalog) failureLife(err error) time.Duration {
	if errors.Is(err, errors.ErrUnsupported) {
		return c.opts.ListTTL
	}
	return c.opts.NegTTL
}

func listError(remote, collection string, err error) error {
	return &backends.Error{Op: "list", Remote: remote, Subject: backends.EscapePath(collection), Err: err}
}

func (c *Catalog) relist(ctx context.Context, s *index.Index, r Remote, collection string, asked time.Time) error {
	l := newRelisting(c, s, r.Name, collection, asked)
	truncated, err := l.fetch(ctx, r.Client)
	if err == nil {
		err = l.flush()
	}
	switch {
	case err == nil:
		err = l.finish(truncated)
	case errors.Is(err, fs.ErrNotExist) && collection != "":
		l.vanish() // a remote has a root, whatever stands in its place for a while
	}
	l.end()
	return err
}

// fetch reads the listing from the registry.
func (l *relisting) fetch(ctx context.Context, client *backends.Client) (truncated bool, err error) {
	timeout := l.c.opts.Timeout
	ctx, cancel := context.WithTimeout(ctx, listingTimeouts*timeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	idle := time.AfterFunc(timeout, func() { giveUp(context.DeadlineExceeded) })
	defer idle.Stop()
	n := 0
	ctx = backends.OnProgress(ctx, func() { idle.Reset(timeout) })
	for e, err := range client.List(ctx, l.collection) {
		if err != nil {
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				err = listError(l.remote, l.collection, fmt.Errorf("%w: no answer for %v", context.DeadlineExceeded, timeout))
			}
			if flushErr := l.flush(); flushErr != nil {
				err = errors.Join(err, flushErr)
			}
			return false, err
		}
		if n++; n > maxListing {
			l.c.opts.Log.Error("listing cut off: the registry lists more than we take",
				"remote", l.remote, "collection", l.collection, "taken", maxListing)
			return true, nil
		}
		idle.Reset(timeout)
		if l.add(e) < index.Batch {
			continue
		}
		if err := l.flush(); err != nil {
			return false, err
		}
	}
	return false, nil
}
