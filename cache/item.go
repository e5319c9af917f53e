// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// An item is what the cache knows of one blob from one origin, open or not. The
// main item of a key is that of the whole and verified blob. Its parts are what
// came in of it and was not verified yet, each from one origin: whoever reads them
// believes that one. When a part is whole and verified, it becomes the main one,
// and whoever reads another part goes on with that.
type item struct {
	cache *Cache
	key   Key
	from  origin // "" of a main one
	main  *item  // itself, or that of a part

	// busy is full while somebody opens, replaces or removes the files of a key. All
	// items of the key have the same. It guards guarded, of a main one, which says
	// that the kernel was asked to watch over its file.
	busy    chan struct{}
	guarded bool

	nameless atomic.Bool // its files have lost their names to another process, see HandOver

	parts map[origin]*item // of a main one; guarded by Cache.mu

	mu       sync.Mutex // guards the fields below; no two at once
	rec      Record
	have     int64 // bytes present, as of when data was last open
	handles  int
	data     *data   // nil while it is not open
	gone     bool    // out of the table: look the key up again
	served   *served // of the bytes of a part that are here; nil if none of them were
	mismatch mismatch
	shared   bool        // the whole blob was last read in a shared cache
	vouched  os.FileInfo // of a file of a shared cache whose digest matched; nil if there is none
}

func newItem(c *Cache, key Key) *item {
	it := &item{cache: c, key: key, busy: make(chan struct{}, 1), rec: Record{Key: key, Size: -1, State: Remote}}
	it.main, it.parts = it, map[origin]*item{}
	return it
}

// newPart returns another part of a main item. Call with Cache.mu held.
func (it *item) newPart(from origin) *item {
	p := &item{cache: it.cache, key: it.key, from: from, main: it, busy: it.busy,
		rec: Record{Key: it.key, Size: -1, State: Remote}}
	it.parts[from] = p
	return p
}

// slot returns where the item's files are.
func (it *item) slot() slot {
	dir := it.cache.dir
	if it.nameless.Load() {
		dir = dir.nowhere()
	}
	return dir.slot(it.key, it.from)
}

// id is what the map beside the files calls them.
func (it *item) id() Key {
	if it.from == "" {
		return it.key
	}
	return it.key + "." + Key(it.from)
}

// take returns the main item of key with busy held; release gives it back.
// Errors: ctx's; ErrClosed.
func (c *Cache) take(ctx context.Context, key Key) (*item, error) {
	for {
		it, err := c.lookup(key)
		if err != nil {
			return nil, err
		}
		if err := it.seize(ctx); err != nil {
			return nil, err
		}
		it.mu.Lock()
		gone := it.gone
		it.mu.Unlock()
		if !gone && !c.handedOver.Load() {
			return it, nil
		}
		<-it.busy
	}
}

// seize fills busy. Errors: ctx's; ErrClosed.
func (it *item) seize(ctx context.Context) error {
	select {
	case it.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-it.cache.ctx.Done():
		return ErrClosed
	}
}

// lookup returns the main item of key, which it makes if need be.
func (c *Cache) lookup(key Key) (*item, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.handedOver.Load() {
		return nil, ErrClosed
	}
	it := c.items[key]
	if it == nil {
		it = newItem(c, key)
		c.items[key] = it
	}
	return it, nil
}

// part returns the part of a main item that comes from an origin, which it makes if
// need be. Call with busy held.
func (it *item) part(from origin) *item {
	it.cache.mu.Lock()
	defer it.cache.mu.Unlock()
	if p := it.parts[from]; p != nil {
		return p
	}
	return it.newPart(from)
}

// family returns a main item's parts, and at the end itself.
func (it *item) family() []*item {
	it.cache.mu.Lock()
	defer it.cache.mu.Unlock()
	return append(slices.Collect(maps.Values(it.parts)), it)
}

// release is the end of take. Items of which nothing is here are forgotten; here
// only, because who finds another one of the same key would not wait for busy.
func (it *item) release() {
	for _, one := range it.main.family() {
		one.forgetUnused()
	}
	<-it.busy
}

// forgetUnused takes the item out of the table if nothing is here of it. Call with
// busy held.
func (it *item) forgetUnused() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.rec.State != Remote || it.data != nil || it.handles > 0 || it.mismatch.row > 0 || it.gone {
		return
	}
	c := it.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case it.main != it:
		delete(it.main.parts, it.from)
	case len(it.parts) > 0:
		return
	case c.items[it.key] == it:
		delete(c.items, it.key)
	}
	it.gone = true
}

// parted is called after leaveData, without mu: the item is forgotten if nothing is
// here, now or when who holds busy releases it.
func (it *item) parted() {
	select {
	case it.busy <- struct{}{}:
		it.release()
	default:
	}
}

// open reports whether somebody has d open through the item.
func (it *item) open(d *data) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data == d && it.handles > 0
}

// joinWhole returns the data of the whole blob with one more handle on it, opening
// it if need be; nil if it is not here. Call on the main item, with busy held.
// Errors: ctx's; those of the local disk.
func (it *item) joinWhole(ctx context.Context, src source) (*data, error) {
	it.live()
	if d := it.enter(); d != nil {
		return d, nil
	}
	if d := it.resume(src); d != nil {
		return d, nil
	}
	d, err := it.openWhole(ctx, src)
	if d == nil && err == nil {
		d, err = it.openShared(ctx, src)
	}
	if d != nil {
		it.opened(d)
	}
	return d, err
}

// join returns the data of what came from one origin, with one more handle on it,
// opening it if need be. Call on the part, with busy held.
// Errors: backends.ErrCorrupt; those of the local disk.
func (it *item) join(src source) (*data, error) {
	it.mu.Lock()
	err := it.mismatch.refusal()
	it.mu.Unlock()
	if err == nil {
		err = checkSize(src.image.Size, it.digestOf(src))
	}
	if err != nil {
		return nil, err
	}
	it.live()
	d := it.enter()
	if d == nil {
		if d, err = it.openUnder(src); err != nil {
			return nil, err
		}
	}
	d.download.Offer(src)
	return d, nil
}

// live returns the data that is open and how many handles it has; nil if there is
// none. One that is dying is not: its committer is about to remove its files, and
// live returns when it has. Call with busy held.
func (it *item) live() (*data, int) {
	it.mu.Lock()
	d, handles := it.data, it.handles
	it.mu.Unlock()
	if d == nil || d.phase.Load() != dead {
		return d, handles
	}
	d.stored.disk.Lock()
	defer d.stored.disk.Unlock()
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data, it.handles
}

// enter adds a handle to the data that is open, nil if there is none.
func (it *item) enter() *data {
	it.mu.Lock()
	defer it.mu.Unlock()
	d := it.data
	if d == nil || d.phase.Load() == dead {
		return nil
	}
	it.addHandle(d)
	return d
}

// addHandle is called with mu held.
func (it *item) addHandle(d *data) {
	it.handles++
	it.rec.Used = time.Now()
	d.mu.Lock()
	d.users++
	d.mu.Unlock()
}

// exit takes a handle off.
func (it *item) exit(d *data) {
	gone := d
	it.mu.Lock()
	if it.data == d {
		it.handles--
		it.rec.Used = time.Now()
		// A whole blob has no committer: its last handle closes it.
		if it.handles == 0 && d.phase.Load() == whole {
			gone = it.shut(d)
		}
	}
	it.mu.Unlock()
	if m := it.main; m != it && d.phase.Load() == whole {
		m.mu.Lock()
		m.rec.Used = time.Now() // its file was read
		m.mu.Unlock()
	}
	it.parted()
	it.cache.wasOpen(it)
	if gone != nil {
		gone.leave()
		gone.notifyCommitter()
	}
}

// rest is called when the committer ends: without handles nobody uses d any more.
func (it *item) rest(d *data) {
	defer it.parted()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data == d && it.handles == 0 {
		it.leaveData(d)
	}
}

// retire ends d if nobody has it open and nothing comes in.
func (it *item) retire(d *data) bool {
	defer it.parted()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data != d {
		return true
	}
	idle := it.handles == 0 && d.download.StopIfIdle()
	if idle {
		it.leaveData(d)
	}
	return idle
}

// detach parts the item from d, whoever has d open.
func (it *item) detach(d *data) {
	defer it.parted()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data != d {
		return
	}
	if d.download != nil {
		d.download.Stop()
	}
	it.leaveData(d)
}

// leaveData takes d off the item and notes what is left on the disk. Call with mu
// held, and parted after it.
func (it *item) leaveData(d *data) {
	it.data, it.handles = nil, 0
	var onDisk int64
	it.rec.State = Remote
	switch phase := d.phase.Load(); {
	case phase == partial:
		if info, err := os.Lstat(it.slot().part()); err == nil {
			onDisk, it.have, it.rec.State = disk.Allocated(info), d.present(), Partial
		}
	case phase == whole && it.main == it:
		if info, err := os.Lstat(it.cache.dir.file(it.key)); err == nil {
			onDisk, it.have, it.rec.State = disk.Allocated(info), d.size, Cached
		}
	default: // nothing, or what is the main one's now
		it.have, it.served = 0, nil
	}
	it.setOnDisk(onDisk)
	it.cache.touch(it.key)
}

// setOnDisk is called with mu held.
func (it *item) setOnDisk(n int64) {
	it.cache.used.Add(n - it.rec.OnDisk)
	it.rec.OnDisk = n
}

// measured notes how much of the disk the blob takes.
func (it *item) measured(onDisk int64) {
	it.mu.Lock()
	it.setOnDisk(onDisk)
	first := it.rec.State == Remote
	if first {
		it.rec.State = Partial
	}
	it.mu.Unlock()
	it.cache.touch(it.key)
	if first {
		it.cache.announce(it.key, Partial)
	}
}

// wasVerified notes that a blob is whole and in its place. Call on the main item.
func (it *item) wasVerified(info os.FileInfo) {
	it.mu.Lock()
	it.rec.Used = time.Now()
	it.verified(info)
	it.mu.Unlock()
	it.cache.changed(it)
	it.cache.announce(it.key, Cached)
}

// verified is called with mu held.
func (it *item) verified(info os.FileInfo) {
	it.shared = false
	it.rec.State, it.rec.Size, it.have = Cached, info.Size(), info.Size()
	it.rec.Verified, it.rec.ModTime = time.Now(), info.ModTime()
	it.setOnDisk(disk.Allocated(info))
}

// refill downloads a blob without a reader.
func (c *Cache) refill(key Key, src source) {
	d, err := c.openData(c.ctx, key, src)
	if err != nil {
		return
	}
	if d.download != nil {
		d.download.StartBackground()
	}
	d.item.exit(d)
}
