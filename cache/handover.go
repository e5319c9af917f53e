// SPDX-License-Identifier: Apache-2.0

package cache

import "context"

// HandOver gives the directory up to another process while blobs are open: their
// handles go on until Close, and nothing else does. Whole blobs are read through the
// files that are open. What is open and not whole loses its names in the directory and
// comes in as before, into a file that ends with its last handle: whoever owns the
// directory then fetches it again. A chunk map has one writer, and a whole blob none.
//
// ctx bounds the wait for who is just opening a blob, and for what makes itself durable.
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
