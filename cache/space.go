// SPDX-License-Identifier: Apache-2.0

package cache

// Space returns the bytes that are free on the disk of the cache, and how many of
// them it leaves free. ok is false where the system does not tell.
func (c *Cache) Space() (free, reserve int64, ok bool) {
	free, _, ok = diskSpace(string(c.dir))
	return free, max(c.opts.MinFree, 0), ok
}
