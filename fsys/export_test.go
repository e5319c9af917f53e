// SPDX-License-Identifier: Apache-2.0

package fsys

import "time"

// Age makes a draft look as if it had been closed that much earlier.
func (d *Draft) Age(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = d.closed.Add(-by)
}
