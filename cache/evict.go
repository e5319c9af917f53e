// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"slices"

	"github.com/sregfs/sregfs/backends/disk"
)

// trimStep is how much is written before the limits are looked at again.
const trimStep = 64 << 20

// Trim evicts until the limits hold, and returns how many bytes it freed. The
// blobs used longest ago go first; those that are open, being fetched or pinned
// stay.
func (c *Cache) Trim() int64 { return c.trim(0) }

// trim is Trim with room for need more bytes.
func (c *Cache) trim(need int64) int64 {
	if !c.over(need) {
		c.crowded.Store(false)
		return 0
	}
	c.trims.Lock()
	defer c.trims.Unlock()
	defer func() { c.crowded.Store(c.over(0)) }()
	over := func() bool { return c.over(need) }
	freed := c.trimMetadata(func() bool { return over() && c.oversized() })
	for _, it := range c.oldest() {
		if !over() {
			return freed
		}
		freed += it.evict()
	}
	return freed + c.trimMetadata(over)
}

// over reports whether need more bytes would be too many.
func (c *Cache) over(need int64) bool {
	return c.opts.MaxBytes > 0 && c.used.Load()+c.told.Load()+need > c.opts.MaxBytes || !c.fits(need)
}

// fits reports whether the disk has room for n more bytes.
func (c *Cache) fits(n int64) bool {
	free, _, ok := disk.Space(string(c.dir))
	return !ok || free-n >= max(c.opts.MinFree, 0)
}

// oldest returns the items by their last use.
func (c *Cache) oldest() []*item {
	items := c.all()
	used := make(map[*item]int64, len(items))
	for _, it := range items {
		it.mu.Lock()
		used[it] = it.rec.Used.UnixNano()
		it.mu.Unlock()
	}
	slices.SortFunc(items, func(a, b *item) int {
		return int(max(-1, min(used[a]-used[b], 1)))
	})
	return items
}

// evict removes the blob unless somebody needs it, and returns the bytes freed.
func (it *item) evict() int64 {
	select {
	case it.busy <- struct{}{}:
		defer it.release()
	default:
		return 0
	}
	it.closeIdle()
	read := it.readAsPart()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.cache.handedOver.Load() || it.gone || it.data != nil || it.rec.OnDisk == 0 || it.cache.pinned(it.key) || read {
		return 0
	}
	n := it.rec.OnDisk
	if err := it.erase(); err != nil {
		it.cache.opts.Log.Warn("cannot evict a blob", "key", it.key, "err", err)
		return 0
	}
	return n
}

// readAsPart reports whether somebody reads the file of a main item who opened it
// before it was whole.
func (it *item) readAsPart() bool {
	if it.main != it {
		return false
	}
	for _, p := range it.family() {
		if d, _ := p.live(); p != it && d != nil && d.phase.Load() == whole {
			return true
		}
	}
	return false
}

// erase removes the files of an item that is not open. Call with busy and mu held.
func (it *item) erase() error {
	if err := it.slot().drop(); err != nil {
		return localError("remove", err)
	}
	it.setOnDisk(0)
	it.have, it.rec.State, it.served = 0, Remote, nil
	it.cache.touch(it.key)
	it.cache.announce(it.key, Remote)
	return nil
}

func (c *Cache) pinned(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins[key]
}

// grew notes that n bytes were written; now and then the janitor looks whether
// they are too many.
func (c *Cache) grew(n int64) {
	step := int64(trimStep)
	if c.opts.MaxBytes > 0 {
		step = min(step, c.opts.MaxBytes/8)
	}
	if c.growth.Add(n) < step {
		return
	}
	c.growth.Store(0)
	c.poke(c.full)
}

// abandon drops a blob that nobody has open and that is still being fetched, or
// has just been, and returns how many bytes that frees.
func (it *item) abandon() int64 {
	select {
	case it.busy <- struct{}{}:
		defer it.release()
	default:
		return 0
	}
	it.mu.Lock()
	d, n := it.data, max(it.rec.OnDisk, 1)
	idle := d != nil && it.handles == 0 && d.phase.Load() == partial
	it.mu.Unlock()
	if !idle || it.cache.pinned(it.key) || !d.stored.disk.TryLock() {
		return 0
	}
	defer d.stored.disk.Unlock()
	d.bury(ErrClosed)
	_ = d.stored.written.Truncate(0) // now, and not when its last request has noticed
	return n
}

// abandonFor makes room for n bytes that a reader waits for, at the cost of what
// is only being filled.
func (c *Cache) abandonFor(n int64) (freed bool) {
	c.trims.Lock()
	defer c.trims.Unlock()
	for _, it := range c.oldest() {
		if freed = it.abandon() > 0 || freed; freed && c.fits(n) {
			break
		}
	}
	return freed
}

// evictFor makes room for n bytes that did not find any, and reports whether it
// freed something. For a reader it may do so at the cost of what is only being
// filled.
func (c *Cache) evictFor(n int64, reading bool) bool {
	// The disk may be full for us (a quota) while statfs shows room: free at
	// least one blob.
	if c.trim(n) > 0 {
		return true
	}
	return c.evictOne() || reading && c.abandonFor(n)
}

func (c *Cache) evictOne() bool {
	c.trims.Lock()
	defer c.trims.Unlock()
	for _, it := range c.oldest() {
		if it.evict() > 0 {
			return true
		}
	}
	return false
}

// Remove drops a blob, or all metadata. What is not here is removed already. A blob that nobody
// has open but that is still being fetched is dropped too.
//
// Errors: ErrInUse while it is open or pinned; those of the local disk.
func (c *Cache) Remove(key Key) error {
	if key == Metadata {
		return c.removeMetadata()
	}
	if !key.valid() {
		return nil
	}
	if c.pinned(key) {
		return fmt.Errorf("%w: pinned", ErrInUse)
	}
	it, err := c.take(c.ctx, key)
	if err != nil {
		return err
	}
	defer it.release()
	if !c.single.cancel(key) {
		return fmt.Errorf("%w: open", ErrInUse)
	}
	it.closeIdle()
	all := it.family()
	for _, one := range all {
		if _, handles := one.live(); handles > 0 {
			return fmt.Errorf("%w: open", ErrInUse)
		}
	}
	for _, one := range all {
		if err := one.remove(); err != nil {
			return err
		}
	}
	return nil
}

// remove is Remove for one item that nobody has open.
func (it *item) remove() error {
	if d, _ := it.live(); d != nil {
		d.stored.disk.Lock()
		d.bury(ErrClosed)
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
