// SPDX-License-Identifier: Apache-2.0

package cache

import "github.com/sregfs/sregfs/cache/fetch"

// hint asks once what else somebody who reads the head of a blob will want, and
// fetches that while they read on.
func (d *data) hint() {
	hints := d.item.cache.opts.Hints
	if hints == nil || d.hinted.Swap(true) {
		return
	}
	b := &Blob{size: d.size, cache: d.item.cache, key: d.item.key, window: fetch.Window{Quiet: true}}
	b.data.Store(d)
	b.touched.Store(true) // never to go on with another download
	d.item.cache.spawn(func() {
		for _, r := range hints(d.ctx, b, d.size) {
			off := min(max(r.Off, 0), d.size)
			d.download.Prefetch(off, off+min(max(r.N, 0), d.size-off))
		}
	})
}
