// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// prefetch is called by each lookup of a listed image that has to ask.
func (c *images) prefetch(s *index.Index, r Remote, ref backends.Ref, known index.Entry) {
	if ref.Version != "" {
		return
	}
	key := string(index.ListPrefix(r.Name, ref.Collection))
	window := c.prefetcher.next(key, c.Now())
	if window == 0 {
		return
	}
	started := c.tasks.start(func(ctx context.Context) {
		defer c.prefetcher.done(key)
		if known.Is(index.FromList) {
			// One listing tells all of it.
			c.join(ctx, s, r, ref.Collection) //nolint:errcheck // join has noted it
			return
		}
		c.prefetchFrom(ctx, s, r, ref, window)
	})
	if !started {
		c.prefetcher.done(key)
	}
}

// How many facts are prefetched at once.
const prefetchWorkers = 16

// prefetchFrom asks about the names after ref. The first error ends it: a
// service that is down or wants fewer requests must not get more of them.
func (c *images) prefetchFrom(ctx context.Context, s *index.Index, r Remote, ref backends.Ref, window int) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(prefetchWorkers)
	for _, next := range c.unknownAfter(s, r.Name, ref, window) {
		if ctx.Err() != nil {
			break
		}
		g.Go(guarded(c.opts.Log, func() error {
			if _, err := c.ask(ctx, s, r, next); err != nil && Passing(err) {
				return err
			}
			return nil
		}))
	}
	if err := g.Wait(); err != nil {
		c.opts.Log.Debug("no facts ahead of need", "remote", r.Name, "collection", ref.Collection, "err", err)
	}
}

// unknownAfter returns the listed images after ref of which no fresh facts are
// stored, among the next n.
func (c *images) unknownAfter(s *index.Index, remote string, ref backends.Ref, n int) []backends.Ref {
	var refs []backends.Ref
	prefix := index.ListPrefix(remote, ref.Collection)
	from := append(index.ImageKey(remote, ref), 0)
	for kv, err := range s.Scan(prefix, from) {
		if err != nil || n == 0 {
			break
		}
		kind, name, tag, ok := index.CutEntry(kv.Key[len(prefix):])
		if !ok || kind != index.KindImage {
			continue
		}
		next := backends.Ref{Collection: ref.Collection, Name: string(name), Tag: string(tag)}
		e, ok := index.Decode(kv.Value, next)
		if !ok || !e.Is(index.InListing) {
			continue
		}
		n--
		if !e.Is(index.Full) || !c.fresh(e.Seen, c.opts.ListTTL) {
			refs = append(refs, next)
		}
	}
	return refs
}
