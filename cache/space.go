// SPDX-License-Identifier: Apache-2.0

package cache

import "github.com/sregfs/sregfs/backends/disk"

// Space returns the bytes that are free on the disk of the cache, and how many of
// them it leaves free. ok is false where the system does not tell.
func (c *Cache) Space() (free, reserve int64, ok bool) {
	free, _, ok = disk.Space(string(c.dir))
	return free, max(c.opts.MinFree, 0), ok
}
