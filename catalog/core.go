// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
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
	Hosts   Hosts    // remotes that no configuration names; nil: there are none
	// State opens the local state when it is first needed: what only concerns files
	// of the local remote never needs it. The catalogue closes it.
	State func() (*State, error)
	// Records is the directory of pins and of collections made by hand, which no
	// registry knows. It is made when first written; "" keeps them in memory.
	Records string
	ListTTL time.Duration // age at which a listing is refreshed; default 60 s
	NegTTL  time.Duration // how long "no such image" is believed; default 5 s
	Timeout time.Duration // for one question to a registry; default 30 s
	Log     *slog.Logger
}

// Progress is called with the state of a transfer: bytes done of total (-1: not known).
type Progress func(done, total int64)

// core is what the other layers share: the remotes, the local state, the background work, and
// what is remembered for a short while.
type core struct {
	opts    Options
	remotes remotes
	hosts   byHost
	clock   *clock
	expired atomic.Int64 // what was stored before, in Unix nanoseconds, is out of date

	watchers watchers
	tasks    tasks
	health   health
	negative negativeCache // names that the registry does not have
	failed   failures      // questions that were refused or failed
	writes   recentWrites
	records  *records.Records // pins, collections made by hand
	locks    [64]sync.Mutex   // guard the stored entries of a collection, see lock
	trees    sync.Mutex       // held while collections come and go; after one of locks
	opening  sync.Mutex       // held while the state is opened and closed
	state    atomic.Pointer[State]
	closed   atomic.Bool
}

// Remotes returns all remotes in the order of their names: those that are configured, and
// the hosts of which something was opened.
func (c *core) Remotes() []Remote {
	all := slices.Clone(c.remotes.all())
	for _, r := range c.hosts.shown() {
		if at, found := findRemote(all, r.Name); !found {
			all = slices.Insert(all, at, r)
		}
	}
	return all
}

// Remote returns one remote. One that is the name of a host, and of no configured remote, is
// made now, if Options.Hosts allows it. Errors: fs.ErrNotExist.
func (c *core) Remote(name string) (Remote, error) {
	list := c.remotes.all()
	if i, ok := findRemote(list, name); ok {
		return list[i], nil
	}
	if r, err := c.hosts.remote(name); !errors.Is(err, fs.ErrInvalid) {
		return r, err
	}
	var known []string
	for _, r := range list {
		known = append(known, r.Name)
	}
	return Remote{}, backends.NotFound("no remote is named %q%s", name, backends.DidYouMean(name, known))
}

// Live returns the remote of that name if it can be asked.
func (c *core) Live(name string) (Remote, error) {
	r, err := c.Remote(name)
	if err == nil && r.Client == nil {
		return r, r.Unopened()
	}
	return r, err
}

// Watch calls fn for each event until stop is called. fn must not block, nor
// call the catalogue. A call under way when stop is called may still end.
func (c *core) Watch(fn func(Event)) (stop func()) { return c.watchers.add(fn) }

// State returns the local state, and opens it at the first call. After an error
// the next call tries again.
func (c *core) State() (*State, error) {
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
		for _, pin := range c.records.RunPins() {
			s.Cache.Pin(cache.KeyOf(pin.Remote, pin.Image))
		}
	}
	c.state.Store(s)
	return s, nil
}

// Opened is State without opening it: nil before the first call of that.
func (c *core) Opened() *State { return c.state.Load() }

// Go runs f in the background. Its context ends when the catalogue is closed, which waits for
// it; a panic is logged. It reports whether f will be called.
func (c *core) Go(f func(ctx context.Context)) bool { return c.tasks.start(f) }

// Note records how a remote answered: a nil error if it did.
func (c *core) Note(remote string, err error) { c.health.note(remote, err, c.Now()) }

// Health returns when a remote answered last, and its last error if no answer followed.
func (c *core) Health(remote string) (seen time.Time, err error) {
	h := c.health.of(remote)
	return h.seen, h.err
}

// Records are the pins, and the collections made by hand.
func (c *core) Records() *records.Records { return c.records }

// Tell emits events.
func (c *core) Tell(events ...Event) { c.watchers.emit(events...) }

// store returns the store of the state.
func (c *core) store() (*index.Index, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	return s.Index, nil
}

// Now is the time by the catalogue's clock, which never goes back.
func (c *core) Now() time.Time { return c.clock.now() }

// fresh reports whether an answer from t is younger than ttl and was not expired.
func (c *core) fresh(t time.Time, ttl time.Duration) bool {
	if t.IsZero() || t.UnixNano() <= c.expired.Load() {
		return false
	}
	age := c.Now().Sub(t)
	return 0 <= age && age < ttl
}

// lock locks the stored entries of one collection (and of some others).
func (c *core) lock(remote, collection string) (unlock func()) {
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
func (c *core) listFresh(h index.Header) bool {
	return c.fresh(h.Fetched, max(c.opts.ListTTL, 5*h.Took))
}

// BlobInfo returns how much of an image is in the cache, without reading it. Nothing is,
// before the state could be opened.
func (c *core) BlobInfo(remote string, img backends.Image) cache.Info {
	r, unknown := c.Remote(remote)
	if unknown == nil && r.InPlace(img) {
		return cache.Info{Record: cache.Record{Size: img.Size, State: cache.Cached}, Have: max(img.Size, 0)}
	}
	key := cache.KeyOf(remote, img)
	s, err := c.State()
	if err != nil || s.Cache == nil {
		return cache.Info{Record: cache.Record{Key: key, Size: img.Size, State: cache.Remote}}
	}
	if unknown != nil || r.Client == nil {
		return s.Cache.Info(key)
	}
	return s.Cache.InfoOf(r.Client, img)
}

// tellAbove emits that the listings above a collection changed, one for each new
// ancestor.
func (c *core) tellAbove(remote, collection string, ancestors []index.KV) {
	for range ancestors {
		collection, _ = index.Parent(collection)
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: collection})
	}
}

// failureLife is how long a question that failed with err is not asked again.
func (c *core) failureLife(err error) time.Duration {
	if errors.Is(err, errors.ErrUnsupported) {
		return c.opts.ListTTL
	}
	return c.opts.NegTTL
}

func listError(remote, collection string, err error) error {
	return &backends.Error{Op: "list", Remote: remote, Subject: backends.EscapePath(collection), Err: err}
}

// renamed reports whether an image has another file name than before: a listing
// of names has only a guess of the format.
func renamed(old, now index.Entry) bool {
	a, b := old.Image.Format, now.Image.Format
	return backends.Ext(a) != backends.Ext(b) || a != b && backends.IsPlain(a)
}

// changed reports whether a tree has to look again at an image.
func changed(old, now index.Entry) bool {
	a, b := old.Image, now.Image
	return old.Is(index.Full) != now.Is(index.Full) || a.Version != b.Version || a.Size != b.Size || !a.Modified.Equal(b.Modified)
}
