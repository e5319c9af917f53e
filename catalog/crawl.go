// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sync/errgroup"
)

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
// Collections that cannot be listed, or went meanwhile, are passed over; an error
// of the service ends it. Errors: those of backends.Lister.
func (c *Catalog) Crawl(ctx context.Context, r Remote, from string, mode Crawl) error {
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
