// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// An item is what the cache knows of one blob, open or not.
type item struct {
	cache *Cache
	key   Key

	// busy is full while somebody opens, replaces or removes the blob's files. It
	// guards guarded, which says that the kernel was asked to watch over them.
	busy    chan struct{}
	guarded bool

	mu      sync.Mutex // guards the fields below
	rec     Record
	have    int64 // bytes present, as of when data was last open
	handles int
	data    *data  // nil while it is not open
	gone    bool   // out of the table: look the key up again
	given   *given // of the bytes that are here; nil if none of them were
	strikes strikes
	err     error // of the last strike
}

// take returns the item of key with busy held; release gives it back.
// Errors: ctx's; ErrClosed.
func (c *Cache) take(ctx context.Context, key Key) (*item, error) {
	for {
		it, err := c.lookup(key)
		if err != nil {
			return nil, err
		}
		select {
		case it.busy <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.ctx.Done():
			return nil, ErrClosed
		}
		it.mu.Lock()
		gone := it.gone
		it.mu.Unlock()
		if !gone {
			return it, nil
		}
		<-it.busy
	}
}

// lookup returns the item of key, which it makes if need be.
func (c *Cache) lookup(key Key) (*item, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	it := c.items[key]
	if it == nil {
		it = &item{cache: c, key: key, busy: make(chan struct{}, 1), rec: Record{Key: key, Size: -1, State: Remote}}
		c.items[key] = it
	}
	return it, nil
}

// release is the end of take. An item of which nothing is here is forgotten; here
// only, because who finds another one of the same key would not wait for busy.
func (it *item) release() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.rec.State == Remote && it.data == nil && it.handles == 0 && len(it.strikes) == 0 && !it.gone {
		it.forget()
	}
	<-it.busy
}

// parted is called after part, without mu: the item is forgotten if nothing is
// here, now or when who holds busy releases it.
func (it *item) parted() {
	select {
	case it.busy <- struct{}{}:
		it.release()
	default:
	}
}

// forget takes the item out of the table. Call with busy and mu held.
func (it *item) forget() {
	it.gone = true
	it.cache.mu.Lock()
	defer it.cache.mu.Unlock()
	if it.cache.items[it.key] == it {
		delete(it.cache.items, it.key)
	}
}

// open reports whether somebody has d open through the item.
func (it *item) open(d *data) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data == d && it.handles > 0
}

// join returns the open data with one more handle on it, opening it if need be.
// Call with busy held. Errors: backends.ErrCorrupt; those of the local disk.
func (it *item) join(ctx context.Context, src source) (*data, error) {
	it.mu.Lock()
	err, suspect := it.strikes.refusal(src.client), it.strikes[src.client].row > 0
	it.mu.Unlock()
	if err != nil {
		return nil, err
	}
	it.live()
	d := it.enter()
	joined := d != nil
	if !joined {
		d = it.resume(src)
	}
	if d == nil {
		if d, err = it.openFiles(ctx, src); err != nil {
			return nil, err
		}
	}
	if d.size != src.image.Size && src.image.Size >= 0 && d.phase.Load() != whole {
		it.exit(d)
		return nil, fmt.Errorf("%w: the registry says %d bytes here and %d there", backends.ErrCorrupt, src.image.Size, d.size)
	}
	if !joined || !suspect { // else what others send shall not be mixed with what it sends
		d.offer(src)
	}
	return d, nil
}

// live returns the data that is open and how many handles it has; nil if there is
// none. One that is dying is not: its keeper is about to remove its files, and
// live returns when it has. Call with busy held.
func (it *item) live() (*data, int) {
	it.mu.Lock()
	d, handles := it.data, it.handles
	it.mu.Unlock()
	if d == nil || d.phase.Load() != dead {
		return d, handles
	}
	d.disk.Lock()
	defer d.disk.Unlock()
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
		// A whole blob has no keeper: its last handle closes it.
		if it.handles == 0 && d.phase.Load() == whole {
			gone = it.shut(d)
		}
	}
	it.mu.Unlock()
	it.parted()
	it.cache.wasOpen(it)
	if gone != nil {
		gone.leave()
		gone.kickKeeper()
	}
}

// rest is called when the keeper ends: without handles nobody uses d any more.
func (it *item) rest(d *data) {
	defer it.parted()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data == d && it.handles == 0 {
		it.part(d)
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
	d.mu.Lock()
	idle := it.handles == 0 && d.flights == 0 && d.filler == nil
	d.idle = idle
	d.mu.Unlock()
	if idle {
		it.part(d)
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
	d.mu.Lock()
	d.idle = true
	d.mu.Unlock()
	it.part(d)
}

// part takes d off the item and notes what is left on the disk. Call with mu held,
// and parted after it.
func (it *item) part(d *data) {
	it.data, it.handles = nil, 0
	var onDisk int64
	switch d.phase.Load() {
	case partial:
		it.rec.State = Remote
		if info, err := os.Lstat(it.cache.dir.part(it.key)); err == nil {
			onDisk, it.have, it.rec.State = allocated(info), d.present(), Partial
		}
	case whole:
		it.rec.State = Remote
		if info, err := os.Lstat(it.cache.dir.file(it.key)); err == nil {
			onDisk, it.have, it.rec.State = allocated(info), d.size, Cached
		}
	case dead:
		it.have, it.rec.State, it.given = 0, Remote, nil
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

// wasVerified notes that the blob is whole; kept tells whether it has its name.
func (it *item) wasVerified(info os.FileInfo, kept bool) {
	it.mu.Lock()
	it.strikes, it.err = nil, nil
	it.rec.Used = time.Now()
	if kept {
		it.verified(info)
	} else {
		it.rec.State = Cached
	}
	it.mu.Unlock()
	it.cache.changed(it)
	it.cache.announce(it.key, Cached)
}

// verified is called with mu held.
func (it *item) verified(info os.FileInfo) {
	it.rec.State, it.rec.Size, it.have = Cached, info.Size(), info.Size()
	it.rec.Verified, it.rec.ModTime = time.Now(), info.ModTime()
	it.setOnDisk(allocated(info))
}

// refill downloads a blob without a reader.
func (c *Cache) refill(key Key, src source) {
	it, err := c.take(c.ctx, key)
	if err != nil {
		return
	}
	defer it.release()
	d, err := it.join(c.ctx, src)
	if err != nil {
		return
	}
	d.mu.Lock()
	d.startFiller()
	d.mu.Unlock()
	it.exit(d)
}
