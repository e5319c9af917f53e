// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

const (
	maxListing = 1_000_000 // entries of one collection; a service may be endless
	// A listing may take this many times Options.Timeout, if there is a new entry or a
	// byte of an answer in each of them.
	listingTimeouts = 20
)

// listings is the layer of collections: what they hold, and how it is kept up to date.
type listings struct {
	core
	listing singleflight.Group // a collection is listed once at a time
}

// Refresh asks the registry for a collection's listing now and stores it. A
// refresh under way is joined. What is stored stays as it is when the registry
// does not answer.
//
// Errors: those of backends.Lister.
func (c *listings) Refresh(ctx context.Context, remote, collection string) error {
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

// refreshLater refreshes in the background, unless that failed a moment ago.
func (c *listings) refreshLater(r Remote, collection string) {
	s, err := c.store()
	if err != nil || r.Client == nil || c.failed.recent(string(index.HeaderKey(r.Name, collection)), c.Now()) != nil {
		return
	}
	c.tasks.start(func(ctx context.Context) {
		err := c.join(ctx, s, r, collection)
		if h, ok := s.Header(r.Name, collection); err == nil && ok && h.Fetched.IsZero() {
			err = c.join(ctx, s, r, collection) // the listing that was joined began before the change
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			c.opts.Log.Debug("listing not refreshed", "err", err)
		}
	})
}

// join makes a listing, or waits for the one being made. The listing does not end with
// ctx: others may wait for it, and half of it is of no use.
func (c *listings) join(ctx context.Context, s *index.Index, r Remote, collection string) error {
	key := string(index.HeaderKey(r.Name, collection))
	done := c.listing.DoChan(key, func() (any, error) {
		return nil, c.tasks.run(func(ctx context.Context) error {
			asked := c.Now()
			defer c.writes.ask(asked)()
			err := c.relist(ctx, s, r, collection, asked)
			c.Note(r.Name, err)
			switch {
			case err == nil, collection != "" && c.writes.since(index.ChildKey(r.Name, collection), asked):
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

func (c *listings) relist(ctx context.Context, s *index.Index, r Remote, collection string, asked time.Time) error {
	l := newRelisting(&c.core, s, r.Name, collection, asked)
	truncated, err := l.fetch(ctx, r.Client)
	if err == nil {
		err = l.flush()
	}
	switch {
	case err == nil:
		err = l.finish(truncated)
	case errors.Is(err, fs.ErrNotExist) && collection != "":
		l.vanish() // a remote always has a root: the answer is a proxy's
	}
	l.end()
	for _, collection := range l.emptied {
		c.lookAgain(s, r, collection)
	}
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

// lookAgain lists an emptied collection in the background, if that is due.
func (c *listings) lookAgain(s *index.Index, r Remote, collection string) {
	if h, ok := s.Header(r.Name, collection); !ok || !c.listFresh(h) {
		c.refreshLater(r, collection)
	}
}

// A Crawl says which listings are made.
type Crawl int

// The kinds of Crawl.
const (
	StoredOnly Crawl = iota // none
	NeverMade               // those that were never made
	AllFresh                // and those that are out of date
)

const crawlWorkers = 4 // listings of one remote made at once

// Crawl makes the listings of a collection and of all below it, level by level.
// Collections that cannot be listed, or were removed meanwhile, are skipped; any other
// error ends it. Errors: those of backends.Lister.
func (c *listings) Crawl(ctx context.Context, r Remote, from string, mode Crawl) error {
	switch {
	case mode == StoredOnly:
		return nil
	case r.Client == nil:
		return r.Unopened()
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	for level := []string{from}; len(level) > 0; {
		g, groupCtx := errgroup.WithContext(ctx)
		g.SetLimit(crawlWorkers)
		for _, collection := range level {
			h, ok := s.Header(r.Name, collection)
			if ok && (mode == NeverMade || c.listFresh(h)) {
				continue
			}
			g.Go(guarded(c.opts.Log, func() error {
				err := c.join(groupCtx, s, r, collection)
				if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}))
		}
		if err := g.Wait(); err != nil {
			return err
		}
		var next []string
		for _, collection := range level {
			next = append(next, s.Children(r.Name, collection)...)
		}
		level = next
	}
	return nil
}
