// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends/sched"
)

// List is Lister.List. It is retried only while it has yielded nothing.
// Entries with impossible names are left out; Hidden counts them, and the first
// ones are logged. A listing of which nothing is told is an error.
func (c *Client) List(ctx context.Context, collection string) iter.Seq2[Entry, error] {
	lister, ok := c.backend.(Lister)
	if !ok {
		return Fail[Entry](c.failAll("list", collection, c.unsupported("list its images")))
	}
	if err := checkCollection(collection); err != nil {
		return Fail[Entry](c.failAll("list", collection, err))
	}
	return func(yield func(Entry, error) bool) {
		hidden := 0
		defer func() {
			c.hidden.set(collection, hidden)
			if hidden > maxLogged {
				c.opts.Log.Warn("names left out of a listing", "remote", c.name, "collection", collection, "count", hidden)
			}
		}()
		told, untold := false, error(nil)
		list := func(ctx context.Context) iter.Seq2[Entry, error] { return lister.List(ctx, collection) }
		more := stream(ctx, c, &c.lists, list, func(e Entry, err error) bool {
			if err != nil {
				yield(e, c.failAll("list", collection, err))
				return false
			}
			if e.Untold != nil {
				untold = e.Untold
				return yield(e, nil)
			}
			told = true
			if err := checkEntry(collection, e); err != nil {
				if hidden++; hidden <= maxLogged {
					c.opts.Log.Warn("name left out of a listing", "remote", c.name, "collection", collection, "reason", err)
				}
				return true
			}
			return yield(e, nil)
		})
		if more && untold != nil && !told {
			yield(Entry{}, c.failAll("list", collection, BrokenOff(untold)))
		}
	}
}

// maxLogged is how many of the names that a listing leaves out are logged: a
// registry must not be able to fill the disk with them.
const maxLogged = 10

// checkEntry looks whether e lies directly in collection and can be shown.
func checkEntry(collection string, e Entry) error {
	if e.Collection == "" {
		if e.Image.Ref.Collection != collection {
			return fmt.Errorf("%w: %q is not in it", ErrBadAnswer, e.Image.Ref)
		}
		return checkImage(e.Image)
	}
	if err := checkCollection(e.Collection); err != nil {
		return err
	}
	if parent := path.Dir(e.Collection); parent != collection && (collection != "" || parent != ".") {
		return fmt.Errorf("%w: %q is not in it", ErrBadAnswer, e.Collection)
	}
	return nil
}

// Search is Searcher.Search, as List.
func (c *Client) Search(ctx context.Context, query string) iter.Seq2[Image, error] {
	searcher, ok := c.backend.(Searcher)
	if !ok {
		return Fail[Image](c.failAll("search", query, c.unsupported("search")))
	}
	return func(yield func(Image, error) bool) {
		hidden := 0
		search := func(ctx context.Context) iter.Seq2[Image, error] { return searcher.Search(ctx, query) }
		stream(ctx, c, &c.searches, search, func(img Image, err error) bool {
			if err != nil {
				return yield(img, c.failAll("search", query, err))
			}
			if err := checkImage(img); err != nil {
				if hidden++; hidden <= maxLogged {
					c.opts.Log.Warn("name left out of a search", "remote", c.name, "reason", err)
				}
				return true
			}
			return yield(img, nil)
		})
	}
}

// FindEndpoints is EndpointFinder.FindEndpoints, as List.
func (c *Client) FindEndpoints(ctx context.Context, query string) iter.Seq2[Endpoint, error] {
	finder, ok := c.backend.(EndpointFinder)
	if !ok {
		return Fail[Endpoint](c.failAll("search", query, c.unsupported("look for places that keep files")))
	}
	return func(yield func(Endpoint, error) bool) {
		find := func(ctx context.Context) iter.Seq2[Endpoint, error] { return finder.FindEndpoints(ctx, query) }
		stream(ctx, c, &c.searches, find, func(e Endpoint, err error) bool { return yield(e, c.failAll("search", query, err)) })
	}
}

// stream yields what the backend's sequence does. Neither the time limit runs
// nor a slot is held while the consumer has an element: it may well ask the
// same remote for more. It reports whether the consumer wants more.
func stream[T any](ctx context.Context, c *Client, l *sched.Quota, open func(context.Context) iter.Seq2[T, error], yield func(T, error) bool) (more bool) {
	d := c.delays(ctx)
	d.quota = l
	yielded, stopped := false, false
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, d.left(c.opts.MaxElapsed), sched.Question)
		if err != nil {
			return err
		}
		for v, seqErr := range guarded(c.opts.Log, open(tried)) {
			if err = seqErr; err != nil {
				break
			}
			t.hear()
			t.rest()
			t.leave()
			yielded = true
			if stopped = !yield(v, nil); stopped {
				break
			}
			if err = t.enterAgain(tried); err != nil {
				break
			}
		}
		err = t.end(ctx, tried, err)
		if yielded && err != nil {
			return backoff.Permanent(BrokenOff(err))
		}
		return err
	})
	if err != nil && !stopped {
		var zero T
		return yield(zero, err)
	}
	return !stopped
}

// watchSettled is how long a stream of changes has to last for the next one to be
// opened without much of a pause.
const watchSettled = 30 * time.Second

// Watch is Watcher.Watch; a stream that fails is opened again, with back-off,
// after a Change that covers everything. It ends when ctx does.
func (c *Client) Watch(ctx context.Context) iter.Seq2[Change, error] {
	watcher, ok := c.backend.(Watcher)
	if !ok {
		return Fail[Change](c.failAll("watch", "", c.unsupported("tell about changes")))
	}
	return func(yield func(Change, error) bool) {
		d := c.delays(ctx)
		again := backoff.WithContext(d.exp, ctx)
		for ctx.Err() == nil {
			opened := time.Now()
			for change, err := range guarded(c.opts.Log, watcher.Watch(ctx)) {
				if errors.Is(err, errors.ErrUnsupported) {
					yield(Change{}, c.failAll("watch", "", err))
					return
				}
				if err != nil {
					c.opts.Log.Info("watch broke off", "remote", c.name, "reason", redacted(err))
					break
				}
				if !yield(change, nil) {
					return
				}
			}
			// One that tells a change and breaks off, each time, is no success:
			// everything is listed again after each.
			if time.Since(opened) > watchSettled {
				d.exp.Reset()
			}
			if !Pause(ctx, again.NextBackOff(), nil) || !yield(Change{Below: true}, nil) {
				return
			}
		}
	}
}

// hiddenNames counts the names left out of each collection's last listing.
type hiddenNames struct {
	mu    sync.Mutex // guards the field below
	count map[string]int
}

func (h *hiddenNames) set(collection string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n == 0 {
		delete(h.count, collection)
		return
	}
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[collection] = n
}

func (h *hiddenNames) total() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0
	for _, n := range h.count {
		sum += n
	}
	return sum
}
