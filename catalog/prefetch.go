// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// Many registries list names only, and what "ls -l" wants costs a question for
// each. As a kernel reads ahead in a file that is read in order, the facts of
// the following names are fetched once three lookups in one collection had to
// ask; a single stat costs a single question.
const (
	aheadAfter   = 3
	aheadMin     = 16
	aheadMax     = 1024
	aheadWorkers = 16
	aheadForget  = 10 * time.Second // without a lookup: begin anew
)

// readahead knows who reads in order. The zero value is ready.
type readahead struct {
	mu sync.Mutex
	m  map[string]*stream // by key of the collection's listing
}

type stream struct {
	asked   int
	last    time.Time
	window  int
	running bool
}

// next counts a lookup that had to ask, and returns how many names to fetch
// ahead of it; 0 if none. After a positive answer done must be called.
func (a *readahead) next(key string, now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil || len(a.m) >= maxRemembered {
		a.m = make(map[string]*stream)
	}
	st := a.m[key]
	if st == nil || now.Sub(st.last) > aheadForget && !st.running {
		st = &stream{}
		a.m[key] = st
	}
	st.asked++
	st.last = now
	if st.asked < aheadAfter || st.running {
		return 0
	}
	st.running = true
	st.window = min(max(aheadMin, 2*st.window), aheadMax)
	return st.window
}

func (a *readahead) done(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if st := a.m[key]; st != nil {
		st.running = false
	}
}

// lookAhead is told of each lookup of a listed image that has to ask.
func (c *Catalog) lookAhead(s *index.Index, r Remote, ref backends.Ref, known index.Entry) {
	if ref.Version != "" {
		return
	}
	key := string(index.ListPrefix(r.Name, ref.Collection))
	window := c.ahead.next(key, c.Now())
	if window == 0 {
		return
	}
	started := c.tasks.start(func(ctx context.Context) {
		defer c.ahead.done(key)
		if known.Is(index.FromList) {
			// One listing tells all of it.
			c.join(ctx, s, r, ref.Collection) //nolint:errcheck // join has noted it
			return
		}
		c.fetchAhead(ctx, s, r, ref, window)
	})
	if !started {
		c.ahead.done(key)
	}
}

// fetchAhead asks about the names behind ref. The first error ends it: a
// service that is down or wants fewer requests must not get more of them.
func (c *Catalog) fetchAhead(ctx context.Context, s *index.Index, r Remote, ref backends.Ref, window int) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(aheadWorkers)
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

// unknownAfter returns the listed images behind ref of which no fresh facts are
// stored, among the next n.
func (c *Catalog) unknownAfter(s *index.Index, remote string, ref backends.Ref, n int) []backends.Ref {
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
