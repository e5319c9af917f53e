// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/sched"
)

// A Cache is a directory of blobs. All methods may be called from many
// goroutines at once. One process at a time owns a directory: the state
// directory's lock covers the cache too.
type Cache struct {
	common
	table   table
	evictor evictor
	verity  verity
	opener  opener
	streams streams     // downloads of blobs of unknown size
	traffic sched.Total // transfers under way

	leave chan struct{} // closed to end the janitor alone
	left  chan struct{} // closed when it has ended
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
	c := newCache(layout(dir), opts.withDefaults(dir))
	if err := c.table.reconcile(); err != nil {
		c.cancel()
		return nil, localError("open", err)
	}
	c.evictor.metadata.files()
	c.spawn(c.evictor.metadata.removeFormer)
	c.spawn(c.janitor)
	return c, nil
}

func newCache(dir layout, opts Options) *Cache {
	c := &Cache{leave: make(chan struct{}), left: make(chan struct{})}
	c.dir, c.opts = dir, opts
	c.log = opts.Log
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.usage.dir, c.usage.most, c.usage.reserve = string(dir), opts.MaxBytes, max(opts.MinFree, 0)
	c.usage.full = make(chan struct{}, 1)
	c.records = records{index: opts.Index, log: opts.Log, tidy: make(chan struct{}, 1), stale: map[Key]bool{}, dropped: map[Key]bool{}}
	c.table = table{common: &c.common, idle: idleBlobs{wake: make(chan struct{}, 1)}, families: map[Key]*family{}}
	c.evictor.common, c.evictor.table, c.evictor.metadata = &c.common, &c.table, metadata{&c.common}
	c.verity = verity{common: &c.common, table: &c.table}
	c.opener = opener{common: &c.common, table: &c.table, evictor: &c.evictor, verity: &c.verity, refill: c.refill}
	c.streams = streams{opener: &c.opener, running: map[streamed]*streaming{}}
	return c
}

// Close ends all fetching, makes what is here durable and saves the index (unless that
// was handed over). Open handles give errors afterwards. A second Close does nothing.
func (c *Cache) Close() error {
	if !c.workers.close() {
		return nil
	}
	for _, it := range c.table.items() {
		it.closeFiles()
	}
	c.table.idle.close(0)
	if c.handedOver.Load() {
		return nil
	}
	return c.save()
}

const (
	// saveDelay is how long changed records are gathered before they are saved.
	saveDelay = 5 * time.Second
	// metadataEvery is how often metadata is looked at while no blob comes in.
	metadataEvery = time.Minute
)

// janitor saves records and keeps the limits. It ends with the cache, or when that is
// handed over.
func (c *Cache) janitor() {
	defer close(c.left)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due <-chan time.Time
	idle := time.NewTimer(0)
	defer idle.Stop()
	look := time.NewTicker(metadataEvery)
	defer look.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.leave:
			return
		case <-c.usage.full:
			c.evictor.trim(0)
		case <-look.C:
			c.evictor.metadata.files()
			c.evictor.trim(0)
		case <-c.records.tidy:
			if due == nil {
				timer.Reset(saveDelay)
				due = timer.C
			}
		case <-due:
			due = nil
			if err := c.save(); err != nil {
				c.log.Warn("cannot save the cache's index", "err", err)
			}
		case <-c.table.idle.wake:
			idle.Reset(idleAge)
		case <-idle.C:
			if c.table.idle.close(idleAge) {
				idle.Reset(idleAge)
			}
		}
	}
}

// save saves the records that changed.
func (c *Cache) save() error {
	return c.records.save(func(key Key) (Record, bool) {
		info := c.Info(key)
		return info.Record, info.State != Remote && !info.Shared
	})
}

// Pin keeps a blob from eviction until Unpin; it need not be here yet. Pins are
// not stored: the catalogue keeps them and sets them again after Open.
func (c *Cache) Pin(key Key) { c.evictor.pins.Store(key, true) }

// Unpin is the inverse of Pin.
func (c *Cache) Unpin(key Key) { c.evictor.pins.Delete(key) }

// Trim evicts until the limits hold, and returns how many bytes it freed. The
// blobs used longest ago go first; those that are open, being fetched or pinned
// stay.
func (c *Cache) Trim() int64 { return c.evictor.trim(0) }

// Adopt takes over the file at path as the whole and verified blob of a digest
// that the caller has computed: by rename, or by clone or copy where path is on
// another disk or has another name too. The blob may be here already, and open:
// its readers go on with the adopted file, but get backends.ErrCorrupt if they were given
// other bytes before. Afterwards nothing is at path.
//
// Errors: fs.ErrInvalid if digest is no "sha256:…" or the file not size bytes
// long; those of the local disk.
func (c *Cache) Adopt(path, digest string, size int64) error {
	key := Key(digest)
	if !key.valid() || KeyOf("", backends.Image{Digest: digest}) != key {
		return fmt.Errorf("%w: cannot adopt a file under %q", fs.ErrInvalid, digest)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return localError("adopt", err)
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return fmt.Errorf("%w: %s is not a file of %d bytes", fs.ErrInvalid, path, size)
	}
	f, err := c.table.take(c.ctx, key)
	if err != nil {
		return err
	}
	defer f.release()
	if f.here(info.Size()) {
		return localError("adopt", os.Remove(path))
	}
	return localError("adopt", f.replace(path, size, nil, func() error { return f.adopt(path, info) }))
}

// Remove drops a blob, or all metadata. What is not here is removed already. A blob that nobody
// has open but that is still being fetched is dropped too.
//
// Errors: ErrInUse while it is open or pinned; those of the local disk.
func (c *Cache) Remove(key Key) error {
	if key == Metadata {
		return c.evictor.metadata.remove()
	}
	if !key.valid() {
		return nil
	}
	if c.evictor.pinned(key) {
		return fmt.Errorf("%w: pinned", ErrInUse)
	}
	f, err := c.table.take(c.ctx, key)
	if err != nil {
		return err
	}
	defer f.release()
	if !c.streams.cancel(key) {
		return fmt.Errorf("%w: open", ErrInUse)
	}
	f.closeIdle()
	all := f.members()
	for _, one := range all {
		if _, handles := one.live(); handles > 0 {
			return fmt.Errorf("%w: open", ErrInUse)
		}
	}
	for _, one := range all {
		if err := removeItem(one); err != nil {
			return err
		}
	}
	return nil
}

// removeItem is Remove for one item that nobody has open.
func removeItem(it *item) error {
	if d, _ := it.live(); d != nil {
		d.stored.disk.Lock()
		it.bury(d, ErrClosed)
		d.stored.disk.Unlock()
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.mismatch = mismatch{}
	if it.rec.State == Remote {
		return nil
	}
	return it.erase()
}

// Info tells about one blob; State is Remote if nothing of it is here. Of several
// parts it tells how much is here of the largest one.
func (c *Cache) Info(key Key) Info {
	if key == Metadata {
		c.evictor.metadata.files()
		return Info{Record: Record{Key: key, Size: -1, State: Remote, OnDisk: c.usage.meta.Load()}}
	}
	info := Info{Record: Record{Key: key, Size: -1, State: Remote}, Epoch: noEpoch, Pinned: c.evictor.pinned(key)}
	if f := c.table.get(key); f != nil {
		for _, it := range f.members() {
			info.add(it.info())
		}
	}
	return info
}

// InfoOf tells about an image as Blob would give it out: of the bytes that are here,
// those from its remote, or the whole blob wherever that came from.
func (c *Cache) InfoOf(client *backends.Client, img backends.Image) Info {
	key := KeyOf(client.Name(), img)
	info := Info{Record: Record{Key: key, Size: img.Size, State: Remote}, Epoch: noEpoch}
	if f := c.table.get(key); f != nil {
		if p := f.part(source{client, img}.origin()); p != nil {
			info = p.info() // before the main one, which is whole before this one ends
		}
		info.add(f.main.info())
	}
	info.Pinned = c.evictor.pinned(key)
	return info
}

// Infos yields all blobs of which something is in this cache, in no order, and those that
// are refused (Info.Refused), of which nothing is.
func (c *Cache) Infos() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, it := range c.table.items() {
			if !it.isMain() {
				continue
			}
			if info := c.Info(it.key); !info.Shared && (info.State != Remote || !info.Refused.IsZero()) && !yield(info) {
				return
			}
		}
	}
}

// Path returns the file of a blob that is whole and verified.
func (c *Cache) Path(key Key) (string, bool) {
	f := c.table.get(key)
	if f == nil || f.main.info().State != Cached {
		return "", false
	}
	path := c.dir.file(key)
	info, err := os.Lstat(path)
	return path, err == nil && backends.OnlyOurs(info)
}

// Dir returns the directory of the cache, for people to see.
func (c *Cache) Dir() string { return string(c.dir) }

// Shared returns the directories of other caches that are read.
func (c *Cache) Shared() []string { return c.opts.Shared }

// Warning returns Options.Warning.
func (c *Cache) Warning() string { return c.opts.Warning }

// Usage returns the bytes that blobs and metadata take on the disk, and the limit.
func (c *Cache) Usage() (used, limit int64) {
	c.evictor.metadata.files()
	return c.usage.blobs.Load() + c.usage.meta.Load(), c.usage.most
}

// Space returns the bytes that are free on the disk of the cache, and how many of
// them it leaves free. ok is false where the system does not tell.
func (c *Cache) Space() (free, reserve int64, ok bool) {
	free, _, ok = disk.Space(c.usage.dir)
	return free, c.usage.reserve, ok
}

// Verity reports whether whole blobs are guarded by fs-verity, and if they should
// be but cannot, why.
func (c *Cache) Verity() (on bool, why error) {
	return c.verity.on()
}

// Watch calls fn whenever a blob's state changes. fn must not block nor call
// the cache.
func (c *Cache) Watch(fn func(Key, State)) { c.watchers.add(fn) }

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

func (it *item) info() Info {
	it.mu.Lock()
	defer it.mu.Unlock()
	info := Info{Record: it.rec, Shared: it.shared, Open: it.handles, Have: it.have, Err: it.mismatch.err, Refused: it.mismatch.refused()}
	if !it.isMain() {
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

// HandOver gives the directory up to another process while blobs are open: their
// handles go on until Close, and nothing else does. Whole blobs are read through the
// files that are open. A blob that is open and not whole loses its names in the directory,
// and its download goes on into a file that ends with the last handle: the other process
// fetches the blob again. This way a chunk map has one writer, and a whole blob none.
//
// ctx bounds the wait for calls that are opening a blob, and for blobs that are being made
// durable.
// A second HandOver does nothing.
func (c *Cache) HandOver(ctx context.Context) error {
	if !c.table.handOver() {
		return nil
	}
	c.streams.cancelAll()
	for _, it := range c.table.items() {
		if err := giveUp(ctx, it); err != nil {
			return err
		}
	}
	c.table.idle.close(0)
	close(c.leave)
	<-c.left // it saves no more: the index is closed next
	return c.save()
}

// giveUp ends what comes in for nobody, and takes the names from what is open.
func giveUp(ctx context.Context, it *item) error {
	if err := it.family.seize(ctx); err != nil {
		return err
	}
	d, handles := it.live()
	open := d != nil && handles > 0 && d.phase.Load() == partial
	var err error
	if open {
		d.stored.disk.Lock()
		err = localError("remove", it.slot().drop())
		it.nameless.Store(true)
		d.stored.disk.Unlock()
	}
	<-it.family.busy
	if d == nil || open || d.phase.Load() != partial {
		return err
	}
	d.cancel() // its committer makes it durable
	select {
	case <-d.committed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
