// SPDX-License-Identifier: Apache-2.0

package cache

import "time"

// hint asks once what else somebody who reads the head of a blob will want, and
// fetches that while they read on.
func (d *data) hint() {
	hints := d.item.cache.opts.Hints
	if hints == nil || d.hinted.Swap(true) {
		return
	}
	b := &Blob{size: d.size, cache: d.item.cache, key: d.item.key, quiet: true}
	b.data.Store(d)
	b.touched.Store(true) // never to go on with another download
	d.item.cache.spawn(func() {
		for _, r := range hints(d.ctx, b, d.size) {
			d.prefetch(r)
		}
	})
}

// prefetch starts what is missing of r.
func (d *data) prefetch(r Range) {
	off := min(max(r.Off, 0), d.size)
	end := off + min(max(r.N, 0), d.size-off)
	if off == end {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase.Load() == partial && d.usable(time.Now()) == nil {
		d.launch(off, end)
	}
}
