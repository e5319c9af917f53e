// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/records"
)

// State is what a Catalog keeps on the local disk.
type State struct {
	Index *index.Index
	Cache *cache.Cache
	Spool *spool.Spool
}

// Options configure a Catalog.
type Options struct {
	Remotes []Remote // "local" among them
	// State opens the local state when it is first needed: verbs that only look
	// at files of the local remote never do. The catalogue closes what it got.
	State func() (*State, error)
	// Records is the directory for what cannot be found again: pins, collections
	// made by hand. Created when first written; "" keeps them in memory.
	Records string
	ListTTL time.Duration // age at which a listing is refreshed; default 60 s
	NegTTL  time.Duration // how long "no such image" is believed; default 5 s
	Timeout time.Duration // for one question to a registry; default 30 s
	Log     *slog.Logger
}

// Progress is told how a transfer goes: bytes done of total (-1: not known).
type Progress func(done, total int64)

// ErrClosed is what a closed catalogue gives.
var ErrClosed = errors.New("catalog: closed")

// A Catalog is the facts and the verbs. All methods may be called from many
// goroutines at once. Errors of a registry are *backends.Error.
type Catalog struct {
	opts    Options
	remotes remotes
	clock   *clock
	expired atomic.Int64

	watchers watchers
	tasks    tasks
	asking   singleflight.Group // questions about one image
	listing  singleflight.Group // listings of one collection
	health   health
	absent   memory   // names that the registry does not have
	failed   failures // listings that did not come
	own      ownWrites
	ahead    readahead        // facts fetched before they are asked for
	records  *records.Records // pins, collections made by hand
	locks    [64]sync.Mutex   // guard the stored entries of a collection, see lock
	trees    sync.Mutex       // held while collections come and go; after one of locks
	opening  sync.Mutex       // held while the state is opened and closed
	state    atomic.Pointer[State]
	closed   atomic.Bool
	ending   sync.Mutex // held while it is handed over or closed; guards the field below
	rest     *State     // what HandOver has left for Close; nil before
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
	c := &Catalog{opts: opts, clock: newClock(), records: records.New(opts.Records)}
	for _, r := range opts.Remotes {
		if c.remotes.set(r) {
			return nil, fmt.Errorf("%w: two remotes are named %q", fs.ErrInvalid, r.Name)
		}
	}
	c.tasks.log = opts.Log
	return c, nil
}

// Start begins the background work of a long-running process: it watches the services
// that tell of changes until ctx ends, and forgets old versions. It opens the state.
func (c *Catalog) Start(ctx context.Context) error {
	s, err := c.store()
	if err != nil {
		return err
	}
	c.tasks.start(func(ctx context.Context) { c.sweepVersions(ctx, s) })
	for _, r := range c.remotes.start(func(r Remote) { c.watchRemote(ctx, r) }) {
		c.watchRemote(ctx, r)
	}
	return nil
}

// Close ends the background work, uploads too, and closes the state if it was opened.
// A second Close does nothing.
func (c *Catalog) Close() error {
	return c.end((*cache.Cache).Close)
}

// HandOver is Close for a state that another process takes over while images are open:
// what [Catalog.Blob] gave out can be read until Close. ctx bounds what takes time.
func (c *Catalog) HandOver(ctx context.Context) error {
	return c.end(func(b *cache.Cache) error { return b.HandOver(ctx) })
}

// end ends all but the cache, which it lets go of by letGo: the bytes before the index
// that remembers them.
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

// State returns the local state, and opens it at the first call. After an error
// the next call tries again.
func (c *Catalog) State() (*State, error) {
	if s := c.state.Load(); s != nil {
		return s, nil
	}
	c.opening.Lock()
	defer c.opening.Unlock()
	if s := c.state.Load(); s != nil {
		return s, nil
	}
	if c.closed.Load() {
		return nil, ErrClosed
	}
	if c.opts.State == nil {
		return nil, fmt.Errorf("%w: no state directory", fs.ErrInvalid)
	}
	s, err := c.opts.State()
	if err != nil {
		return nil, err
	}
	opened := *s
	s = &opened
	if s.Cache != nil {
		s.Cache.Watch(func(key cache.Key, _ cache.State) {
			c.watchers.emit(Event{Kind: BlobChanged, Key: key})
		})
		for _, pin := range c.records.Pins() {
			s.Cache.Pin(pin.Key)
		}
	}
	c.state.Store(s)
	return s, nil
}

// Opened is State without opening it: nil before the first call of that.
func (c *Catalog) Opened() *State { return c.state.Load() }

// Go runs f in the background. Its context ends when the catalogue is closed, which waits for
// it; a panic is logged. It reports whether f will be called.
func (c *Catalog) Go(f func(ctx context.Context)) bool { return c.tasks.start(f) }

// Note records how a remote answered: a nil error if it did.
func (c *Catalog) Note(remote string, err error) { c.health.note(remote, err, c.Now()) }

// Health returns when a remote answered last, and the last error if nothing has worked since.
func (c *Catalog) Health(remote string) (seen time.Time, err error) {
	h := c.health.of(remote)
	return h.seen, h.err
}

// Records are the pins, and the collections made by hand.
func (c *Catalog) Records() *records.Records { return c.records }

// Tell emits events.
func (c *Catalog) Tell(events ...Event) { c.watchers.emit(events...) }

// store returns the store of the state.
func (c *Catalog) store() (*index.Index, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	return s.Index, nil
}

// Now is the time by the catalogue's clock, which never goes back.
func (c *Catalog) Now() time.Time { return c.clock.now() }

// fresh reports whether what was learnt at t may still be believed.
func (c *Catalog) fresh(t time.Time, ttl time.Duration) bool {
	if t.IsZero() || t.UnixNano() <= c.expired.Load() {
		return false
	}
	age := c.Now().Sub(t)
	return 0 <= age && age < ttl
}

// Expire makes all that is stored count as out of date: the next look at each
// thing asks again.
func (c *Catalog) Expire() {
	c.expired.Store(c.Now().UnixNano())
	c.absent.clear()
	c.failed.clear()
}

// lock locks the stored entries of one collection (and of some others).
func (c *Catalog) lock(remote, collection string) (unlock func()) {
	mu := &c.locks[hashOf(remote, collection)%uint64(len(c.locks))]
	mu.Lock()
	return mu.Unlock
}

var hashSeed = maphash.MakeSeed()

func hashOf(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	for _, p := range parts {
		h.WriteString(p)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// listFresh reports whether a listing need not be made again. One that takes
// long is made less often, so that it never runs all the time.
func (c *Catalog) listFresh(h index.Header) bool {
	return c.fresh(h.Fetched, max(c.opts.ListTTL, 5*h.Took))
}
