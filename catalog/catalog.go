// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/records"
)

// A Catalog is the facts. Make one with New. All methods may be called from many
// goroutines at once. Errors of a registry are *backends.Error.
//
// It is made of layers, each of which calls only those below it.
type Catalog struct {
	changes

	ending sync.Mutex // held while it is handed over or closed; guards the field below
	rest   *State     // what HandOver left for Close to do; nil before
}

// New returns a catalogue. It makes no request and opens nothing yet.
// Errors: fs.ErrInvalid for two remotes of one name.
func New(opts Options) (*Catalog, error) {
	opts.ListTTL = cmp.Or(opts.ListTTL, 60*time.Second)
	opts.NegTTL = cmp.Or(opts.NegTTL, 5*time.Second)
	opts.Timeout = cmp.Or(opts.Timeout, 30*time.Second)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{}
	c.opts, c.clock, c.records = opts, newClock(), records.New(opts.Records)
	c.hosts.in, c.hosts.evicted = opts.Hosts, c.health.forget
	for _, r := range opts.Remotes {
		if c.remotes.set(r) {
			return nil, fmt.Errorf("%w: two remotes are named %q", fs.ErrInvalid, r.Name)
		}
	}
	c.tasks.log = opts.Log
	return c, nil
}

// Start begins the background work of a long-running process: it listens to the
// services that report changes until ctx ends, and forgets old versions. It opens the state.
func (c *Catalog) Start(ctx context.Context) error {
	s, err := c.store()
	if err != nil {
		return err
	}
	c.tasks.start(func(ctx context.Context) { c.sweepVersions(ctx, s) })
	c.remotes.start(func(r Remote) (stop func()) {
		ctx, cancel := context.WithCancel(ctx)
		c.watchRemote(ctx, r)
		return cancel
	})
	return nil
}

// Close ends the background work and closes the state if it was opened. Uploads are
// drained before it (uploads.Uploads.Drain). A second Close does nothing.
func (c *Catalog) Close() error {
	return c.end((*cache.Cache).Close)
}

// HandOver is Close for a state that another process takes over while images are open:
// what [Catalog.Blob] gave out can be read until Close. ctx bounds what takes time.
func (c *Catalog) HandOver(ctx context.Context) error {
	return c.end(func(b *cache.Cache) error { return b.HandOver(ctx) })
}

// end closes everything. The cache, which letGo closes or hands over, comes before the
// index that remembers its blobs.
func (c *Catalog) end(letGo func(*cache.Cache) error) error {
	c.ending.Lock()
	defer c.ending.Unlock()
	if c.rest != nil {
		if c.rest.Cache != nil {
			return letGo(c.rest.Cache)
		}
		return nil
	}
	c.closed.Store(true)
	c.tasks.stop()
	c.opening.Lock()
	defer c.opening.Unlock()
	s := c.state.Swap(nil)
	if s == nil {
		s = &State{}
	}
	c.rest = &State{Cache: s.Cache}
	var errs []error
	if s.Spool != nil {
		errs = append(errs, s.Spool.Close())
	}
	if s.Cache != nil {
		errs = append(errs, letGo(s.Cache))
	}
	if s.Index != nil {
		errs = append(errs, s.Index.Close())
	}
	return errors.Join(errs...)
}

// Expire makes all that is stored count as out of date: each thing is asked for again
// when it is next needed.
func (c *Catalog) Expire() {
	c.expired.Store(c.Now().UnixNano())
	c.negative.clear()
	c.failed.clear()
}

// SetRemote adds a remote, or replaces the one of its name, while others use the
// catalogue. Requests under way keep the client that was replaced, which is not closed.
func (c *Catalog) SetRemote(r Remote) {
	if !c.remotes.set(r) {
		c.watchers.emit(Event{Kind: ListingChanged})
	}
	c.LookAgain()
}

// RemoveRemote takes a remote away while others use the catalogue. Requests under way, and
// images that are open, keep its client, which is not closed.
func (c *Catalog) RemoveRemote(name string) {
	if c.remotes.remove(name) {
		c.watchers.emit(Event{Kind: RemoteGone, Remote: name})
	}
}

// LookAgain clears the negative caches: what registries refused or did not have.
func (c *Catalog) LookAgain() {
	c.failed.clear()
	c.negative.clear()
}
