// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// discover finds out whether there is a collection of which nothing is known, by
// listing it. Where the listing that it is in tells sooner, discover does not
// wait, and the collection's own comes in behind the caller's back: a registry's
// catalogue names its collections at once, while their tags cost requests for
// each image. It is how a path is opened that nobody has listed.
//
// Errors: fs.ErrNotExist if there is none; those of backends.Lister.
func (c *Catalog) discover(ctx context.Context, s *index.Index, r Remote, collection string) error {
	parent, _ := index.Parent(collection)
	_, known := s.Header(r.Name, parent)
	if known || r.Client == nil {
		return c.listable(ctx, s, r, collection)
	}
	var probe sync.WaitGroup
	defer probe.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan struct{})
	probe.Go(func() {
		_ = backends.Guard(c.opts.Log, func() error { // it is in the log, and nothing was found
			if holds(ctx, r, parent, collection) {
				close(found)
				cancel() // the listing goes on without us
			}
			return nil
		})
	})
	err := c.listable(ctx, s, r, collection)
	select {
	case <-found:
		return nil
	default:
		return err
	}
}

// holds reports whether a listing begins with collections, and one of them is
// child. It goes no further than to the first Image: those can cost requests.
func holds(ctx context.Context, r Remote, collection, child string) bool {
	for e, err := range r.Client.List(ctx, collection) {
		if err != nil || e.Collection == "" {
			return false
		}
		if e.Collection == child {
			return true
		}
	}
	return false
}
