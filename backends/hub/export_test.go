// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"time"

	"github.com/sregfs/sregfs/backends"
)

// MaxIndex is maxIndex.
const MaxIndex = maxIndex

// SetMaxIndex bounds the index of b, in bytes.
func SetMaxIndex(b backends.Backend, most int64) { b.(*client).most = most }

// SetPatience is how long a question for one image waits for the index of b.
func SetPatience(b backends.Backend, d time.Duration) { b.(*client).patience = d }

// Forget makes b as if it had just been opened.
func Forget(b backends.Backend) {
	c := b.(*client)
	c.loaded.Store(nil)
	c.mu.Lock()
	c.failed = nil
	c.mu.Unlock()
	for _, key := range c.locations.all.Keys() {
		c.locations.all.Delete(key)
	}
}
