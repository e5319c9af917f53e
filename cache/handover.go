// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"path/filepath"
)

// HandOver gives the directory up to another process while blobs are open: their
// handles go on until Close, and nothing else does. Whole blobs are read through the
// files that are open. What is open and not whole loses its names in the directory and
// comes in as before, into a file that ends with its last handle: whoever owns the
// directory then fetches it again. A chunk map has one writer, and a whole blob none.
//
// ctx bounds the wait for who is just opening a blob, and for what makes itself durable.
// A second HandOver does nothing.
func (c *Cache) HandOver(ctx context.Context) error {
	c.mu.Lock()
	was := c.closed || c.handedOver.Swap(true)
	c.mu.Unlock()
	if was {
		return nil
	}
	c.single.cancelAll()
	for _, it := range c.all() {
		if err := it.handOver(ctx); err != nil {
			return err
		}
	}
	c.idle.close(0)
	close(c.leave)
	<-c.left // it saves no more: the index is closed next
	return c.save()
}

// handOver ends what comes in for nobody, and takes the names from what is open.
func (it *item) handOver(ctx context.Context) error {
	if err := it.seize(ctx); err != nil {
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
	<-it.busy
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

// nowhere is a directory of l that nobody makes.
func (l layout) nowhere() layout { return layout(filepath.Join(string(l), "handed-over")) }

// cancelAll ends all downloads of unknown size and waits for them.
func (s *streams) cancelAll() {
	s.mu.Lock()
	var all []*streaming
	for _, one := range s.running {
		one.cancel()
		all = append(all, one)
	}
	s.mu.Unlock()
	for _, one := range all {
		<-one.done
	}
}
