// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// What one service may answer to a search; it may be endless.
const maxFound = 10_000

// Search is Images, and asks the services that can search themselves. A remote
// that cannot, and was never listed, is listed first. A remote that fails does not
// keep the others from being searched: its error comes last, joined.
func (c *Catalog) Search(ctx context.Context, query, remote string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := c.askSearchers(ctx, query, remote)
		seen := make(map[string]bool)
		var errs []error
		mode := func(r Remote) crawl {
			if r.Client == nil || r.Client.Caps().Has(backends.CanSearch) {
				return storedOnly
			}
			return neverMade
		}
		for rec, err := range c.images(ctx, query, remote, mode) {
			if err != nil {
				errs = append(errs, err)
				break
			}
			seen[rec.URI] = true
			if !yield(rec, nil) {
				return
			}
		}
		found, err := answers()
		for _, rec := range found {
			if seen[rec.URI] {
				continue
			}
			seen[rec.URI] = true
			if !yield(rec, nil) {
				return
			}
		}
		if err := errors.Join(append(errs, err)...); err != nil {
			yield(Record{}, err)
		}
	}
}

// askSearchers begins to ask the services, and returns a function that waits for
// their answers. Nothing is left running when ctx ends.
func (c *Catalog) askSearchers(ctx context.Context, query, remote string) func() ([]Record, error) {
	var g errgroup.Group
	var searchers []Remote
	for _, r := range c.remotes.all() {
		// The files of this machine are walked by Images; a glob is nothing that
		// a service would understand.
		if r.Client != nil && !r.atHand() && r.Client.Caps().Has(backends.CanSearch) && (remote == "" || remote == r.Name) {
			searchers = append(searchers, r)
		}
	}
	records := make([][]Record, len(searchers))
	errs := make([]error, len(searchers))
	for i, r := range searchers {
		g.Go(func() error {
			errs[i] = c.missed(r, remote, backends.Guard(c.opts.Log, func() (err error) {
				records[i], err = c.searchOne(ctx, r, query)
				return err
			}))
			return nil
		})
	}
	return func() ([]Record, error) {
		g.Wait() //nolint:errcheck // the errors are in errs
		var all []Record
		for _, some := range records {
			all = append(all, some...)
		}
		return all, errors.Join(errs...)
	}
}

func (c *Catalog) searchOne(ctx context.Context, r Remote, query string) ([]Record, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	var found []Record
	for img, err := range r.Client.Search(ctx, query) {
		if err != nil {
			c.health.note(r.Name, err, c.now())
			return found, err
		}
		found = append(found, c.record(r.Name, index.Clean(img)))
		if len(found) == maxFound {
			c.opts.Log.Warn("search cut off: the registry finds more than we take", "remote", r.Name, "query", query, "taken", maxFound)
			break
		}
	}
	c.health.note(r.Name, nil, c.now())
	return found, nil
}
