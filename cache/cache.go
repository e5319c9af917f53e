// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/sched"
)

// A Cache is a directory of blobs. All methods may be called from many
// goroutines at once. One process at a time owns a directory: the state
// directory's lock covers the cache too.
type Cache struct {
	dir     layout
	opts    Options
	ctx     context.Context //nolint:containedctx // of the transfers, which serve many callers; ends at Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // everything that spawn started
	used    atomic.Int64   // bytes that all blobs take on the disk, as last measured
	told    atomic.Int64   // bytes that metadata takes, as last measured
	growth  atomic.Int64   // bytes written since the limits were looked at
	tidy    chan struct{}  // wakes the janitor
	leave   chan struct{}  // closed to end the janitor alone
	left    chan struct{}  // closed when it has ended
	full    chan struct{}  // wakes it to trim
	idled   chan struct{}  // wakes it to close idle blobs
	trims   sync.Mutex     // held while evicting
	crowded atomic.Bool    // the limits did not hold after the last one
	looked  atomic.Int64   // when they were looked at because a blob was closed, in Unix nanoseconds
	idle    idleBlobs
	single  streams     // downloads of blobs of unknown size
	traffic sched.Total // transfers under way

	unguarded  atomic.Pointer[error] // why fs-verity is not to be had
	handedOver atomic.Bool           // the directory is another process's, see HandOver; set with mu held

	mu       sync.Mutex // guards the fields below; the last lock taken
	closed   bool
	items    map[Key]*item
	pins     map[Key]bool
	watchers []func(Key, State)
	stale    map[Key]bool // records to save
	dropped  map[Key]bool // records to remove
}

// Options tune a Cache. The zero value has the defaults.
type Options struct {
	MaxBytes int64 // blobs on disk; evicted by last use beyond it; 0 means no limit
	MinFree  int64 // bytes to leave free on the disk; default 256 MiB, or a twentieth of a small disk; negative: none
	Index    Index // nil keeps the facts in memory and finds them again at Open
	Log      *slog.Logger

	// Hints, if not nil, says which ranges of a new blob to fetch first (the
	// head, the tables at the end), given a reader of its bytes. It is called
	// once for each blob, from a goroutine of the cache, when the blob's head is
	// read for the first time: that is somebody mounting or inspecting it.
	Hints func(ctx context.Context, r ReaderAtContext, size int64) []Range

	// Verify says when bytes are given out: Lazy (the default) or Strict.
	Verify Verification
	// StrictSize is the size in bytes up to which a blob is treated as if Verify
	// were Strict: so much is here soon. Default 16 MiB; negative: none.
	StrictSize int64
	// FSVerity lets the kernel guard whole blobs against changes underneath, on
	// filesystems that can (fs-verity: ext4, btrfs, f2fs). Where they cannot, one
	// line in the log says so.
	FSVerity bool

	// Shared are the directories of other caches, in which whole blobs are looked for
	// before they are fetched; see shared.go for what is believed of them.
	Shared []string
	// Warning says why the cache is not what was asked for, "" if it is; see
	// [Cache.Warning].
	Warning string

	NoBackground bool // fetch only what is read, to 1 MiB
	Streams      int  // parallel background requests for one blob at most; 0: as many as its service is best read with, up to 16

	// FillDelay is how long after the first read of a blob the rest of it is
	// fetched, if it is still open by then; default 1 s.
	FillDelay time.Duration
	// Patience is how long a read waits without any progress; default a little more
	// than the client's Timeout.
	Patience time.Duration

	dirtyAge time.Duration // see maxDirtyAge; for tests
}

const (
	defaultMinFree = 256 << 20
	smallDiskShare = 20
)

func (o Options) withDefaults(dir string) Options {
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
		if _, total, ok := disk.Space(dir); ok {
			o.MinFree = min(o.MinFree, total/smallDiskShare)
		}
	}
	o.StrictSize = cmp.Or(o.StrictSize, 16<<20)
	o.FillDelay = cmp.Or(o.FillDelay, time.Second)
	o.dirtyAge = cmp.Or(o.dirtyAge, maxDirtyAge)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Verification says when the bytes of a blob that is not whole yet are given
// out. The empty one is Lazy.
type Verification string

// When bytes are given out.
const (
	// Lazy gives out ranges as they come in, before the whole can be compared with
	// its digest; but small blobs (Options.StrictSize), and the last bytes for who
	// reads all of one, wait for that.
	Lazy Verification = "lazy"
	// Strict gives out nothing before the whole blob is here and its digest
	// matched. Of a blob without a digest that can be checked it waits for the
	// last byte. [Cache.Peek] excepted.
	Strict Verification = "strict"
)

// A Range is n bytes from off.
type Range struct{ Off, N int64 }

// ReaderAtContext is io.ReaderAt with a context for the wait.
type ReaderAtContext interface {
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}

// An Index remembers facts about blobs between runs. It may forget any of them
// at any time. Package catalog/index implements it.
type Index interface {
	Load() iter.Seq2[Record, error]
	Save(records ...Record) error
	Remove(keys ...string) error
}

// A Record is what the index holds of a blob.
type Record struct {
	Key      Key
	Size     int64 // bytes; -1 if not known yet
	State    State
	OnDisk   int64 // bytes of the disk in use
	Used     time.Time
	Verified time.Time // when the digest last matched
	ModTime  time.Time // of the file, when it was verified: another one means "verify again"
}

// A Key names a blob: "sha256:<hex>", or for a service without such digests
// "version:<hex of sha256(remote, ref, version)>".
type Key string

// State is how much of a blob is here.
type State string

// The states of a blob, as `user.sreg.state` shows them (Pinned comes on top).
const (
	Remote  State = "remote"  // nothing is here
	Partial State = "partial" // some ranges are here, or all but not yet verified
	Cached  State = "cached"  // whole and verified
)

// Info is what is known of one blob without touching it.
type Info struct {
	Record
	Pinned bool
	Shared bool  // it is whole in a shared cache, not in this one
	Open   int   // handles
	Have   int64 // bytes present
	Err    error // why the last fetch failed; nil if it did not

	Epoch    Epoch     // of the bytes that are here, see InfoOf
	Requests int       // under way to fetch it
	Refused  time.Time // until then it is not opened, as downloads did not match the digest (Err); zero if it is
}

// Open makes a cache of dir, which is created if it is missing (0700).
// Unfinished blobs are kept and go on when they are opened; a damaged or
// missing index is filled again from the files.
//
// Errors: those of the local disk.
func Open(dir string, opts Options) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, localError("open", err)
	}
	if err := layout(dir).create(); err != nil {
		return nil, localError("open", err)
	}
	c := &Cache{
		dir: layout(dir), opts: opts.withDefaults(dir),
		leave: make(chan struct{}), left: make(chan struct{}),
		tidy: make(chan struct{}, 1), full: make(chan struct{}, 1), idled: make(chan struct{}, 1),
		items: map[Key]*item{}, pins: map[Key]bool{},
		stale: map[Key]bool{}, dropped: map[Key]bool{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.reconcile(); err != nil {
		c.cancel()
		return nil, localError("open", err)
	}
	c.metadata()
	c.spawn(c.removeFormerMetadata)
	c.spawn(c.janitor)
	return c, nil
}

// Close ends all fetching, makes what is here durable and saves the index (unless that
// was handed over). Open handles give errors afterwards. A second Close does nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return nil
	}
	c.cancel()
	c.wg.Wait()
	for _, it := range c.all() {
		it.closeFiles()
	}
	c.idle.close(0)
	if c.handedOver.Load() {
		return nil
	}
	return c.save()
}

// closeFiles takes the files away from the handles that are still open.
func (it *item) closeFiles() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if d := it.data; d != nil {
		it.leaveData(d)
		d.stored.file.Load().Close()
	}
}

// spawn runs fn in a goroutine that Close waits for. It reports false when the
// cache is closed already. A panic of fn ends fn alone: where others wait for what
// comes of it, fn has a Guard inside.
func (c *Cache) spawn(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(func() {
		_ = backends.Guard(c.opts.Log, func() error { fn(); return nil }) // it is in the log
	})
	return true
}

// all returns the items, in no order.
func (c *Cache) all() []*item {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := make([]*item, 0, len(c.items))
	for _, it := range c.items {
		items = append(items, it)
		for _, p := range it.parts {
			items = append(items, p)
		}
	}
	return items
}

// Info tells about one blob; State is Remote if nothing of it is here. Of several
// parts it tells how much is here of the largest one.
func (c *Cache) Info(key Key) Info {
	if key == Metadata {
		c.metadata()
		return Info{Record: Record{Key: key, Size: -1, State: Remote, OnDisk: c.told.Load()}}
	}
	c.mu.Lock()
	it, pinned := c.items[key], c.pins[key]
	c.mu.Unlock()
	info := Info{Record: Record{Key: key, Size: -1, State: Remote}, Epoch: noEpoch}
	if it != nil {
		for _, one := range it.family() {
			info.add(one.info())
		}
	}
	info.Pinned = pinned
	return info
}

// InfoOf tells about an image as Blob would give it out: of the bytes that are here,
// those from its remote, or the whole blob wherever that came from.
func (c *Cache) InfoOf(client *backends.Client, img backends.Image) Info {
	key := KeyOf(client.Name(), img)
	c.mu.Lock()
	it, pinned := c.items[key], c.pins[key]
	var p *item
	if it != nil {
		p = it.parts[originOf(source{client: client, image: img})]
	}
	c.mu.Unlock()
	info := Info{Record: Record{Key: key, Size: img.Size, State: Remote}, Epoch: noEpoch}
	if p != nil {
		info = p.info() // before the main one, which is whole before this one ends
	}
	if it != nil {
		info.add(it.info())
	}
	info.Pinned = pinned
	return info
}

// add takes one of the items of a blob into account.
func (i *Info) add(o Info) {
	if rank(o.State) > rank(i.State) || o.State == i.State && o.Have > i.Have {
		i.State, i.Size, i.Have, i.Verified, i.ModTime, i.Epoch = o.State, o.Size, o.Have, o.Verified, o.ModTime, o.Epoch
		i.Shared = o.Shared
	}
	i.OnDisk += o.OnDisk
	i.Open += o.Open
	i.Requests += o.Requests
	if o.Used.After(i.Used) {
		i.Used = o.Used
	}
	if o.Refused.After(i.Refused) {
		i.Refused, i.Err = o.Refused, o.Err
	}
	if i.Err == nil {
		i.Err = o.Err
	}
}

func rank(s State) int { return slices.Index([]State{Remote, Partial, Cached}, s) }

func (it *item) info() Info {
	it.mu.Lock()
	defer it.mu.Unlock()
	info := Info{Record: it.rec, Shared: it.shared, Open: it.handles, Have: it.have, Err: it.mismatch.err, Refused: it.mismatch.refused()}
	if it.main != it {
		info.Epoch = noEpoch
		if it.served != nil {
			info.Epoch = Epoch{it.served}
		}
	}
	if d := it.data; d != nil {
		info.State, info.Have = d.state(), d.present()
		if d.download != nil {
			info.Requests = d.download.Running()
			if info.Err == nil {
				info.Err = d.download.Failure()
			}
		}
	}
	return info
}

// Infos yields all blobs of which something is in this cache, in no order, and those that
// are refused (Info.Refused), of which nothing is.
func (c *Cache) Infos() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		c.mu.Lock()
		keys := slices.Collect(maps.Keys(c.items))
		c.mu.Unlock()
		for _, key := range keys {
			if info := c.Info(key); !info.Shared && (info.State != Remote || !info.Refused.IsZero()) && !yield(info) {
				return
			}
		}
	}
}

// Path returns the file of a blob that is whole and verified.
func (c *Cache) Path(key Key) (string, bool) {
	c.mu.Lock()
	it := c.items[key]
	c.mu.Unlock()
	if it == nil || it.info().State != Cached {
		return "", false
	}
	path := c.dir.file(key)
	info, err := os.Lstat(path)
	return path, err == nil && backends.OnlyOurs(info)
}

// Pin keeps a blob from eviction until Unpin; it need not be here yet. Pins are
// not stored: the catalogue keeps them and sets them again after Open.
func (c *Cache) Pin(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pins[key] = true
}

// Unpin is the inverse of Pin.
func (c *Cache) Unpin(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pins, key)
}

// Dir returns the directory of the cache, for people to see.
func (c *Cache) Dir() string { return string(c.dir) }

// Shared returns the directories of other caches that are read.
func (c *Cache) Shared() []string { return c.opts.Shared }

// Warning returns Options.Warning.
func (c *Cache) Warning() string { return c.opts.Warning }

// Usage returns the bytes that blobs and metadata take on the disk, and the limit.
func (c *Cache) Usage() (used, limit int64) {
	c.metadata()
	return c.used.Load() + c.told.Load(), c.opts.MaxBytes
}

// Watch calls fn whenever a blob's state changes. fn must not block nor call
// the cache.
func (c *Cache) Watch(fn func(Key, State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers = append(c.watchers, fn)
}

// announce tells the watchers.
func (c *Cache) announce(key Key, state State) {
	c.mu.Lock()
	watchers := c.watchers
	c.mu.Unlock()
	for _, fn := range watchers {
		fn(key, state)
	}
}
