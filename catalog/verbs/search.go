// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"iter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

const (
	maxFound      = 10_000 // what one service may answer to a search; it may be endless
	searchTimeout = 30 * time.Second
)

// Search is Images, and asks the services that can search themselves. A remote
// that cannot, and was never listed, is listed first. If a remote fails, the others are
// still searched; the errors come last, joined.
func (v *browser) Search(ctx context.Context, query, remote string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := v.askSearchers(ctx, query, remote)
		seen := make(map[string]bool)
		var errs []error
		mode := func(r catalog.Remote) catalog.Crawl {
			if r.Client == nil || r.Client.Caps().Has(backends.CanSearch) {
				return catalog.StoredOnly
			}
			return catalog.NeverMade
		}
		for rec, err := range v.images(ctx, query, remote, mode) {
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
func (v *browser) askSearchers(ctx context.Context, query, remote string) func() ([]Record, error) {
	var g errgroup.Group
	var searchers []catalog.Remote
	for _, r := range v.cat.Remotes() {
		// The files of this machine are walked by Images; services
		// do not understand globs.
		if r.Client != nil && !r.Local() && r.Client.Caps().Has(backends.CanSearch) && (remote == "" || remote == r.Name) {
			searchers = append(searchers, r)
		}
	}
	records := make([][]Record, len(searchers))
	errs := make([]error, len(searchers))
	for i, r := range searchers {
		g.Go(func() error {
			errs[i] = v.missed(r, remote, backends.Guard(v.log, func() (err error) {
				records[i], err = v.searchOne(ctx, r, query)
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

func (v *browser) searchOne(ctx context.Context, r catalog.Remote, query string) ([]Record, error) {
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	var found []Record
	for img, err := range r.Client.Search(ctx, query) {
		if err != nil {
			v.cat.Note(r.Name, err)
			return found, err
		}
		found = append(found, v.record(r.Name, index.Clean(img)))
		if len(found) == maxFound {
			v.log.Warn("search cut off: the registry finds more than we take", "remote", r.Name, "query", query, "taken", maxFound)
			break
		}
	}
	v.cat.Note(r.Name, nil)
	return found, nil
}
