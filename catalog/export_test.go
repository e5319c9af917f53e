// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"time"
)

// Suspend lets d pass by the time of day while the steady clock stands still, as
// it does when the machine sleeps.
func (c *Catalog) Suspend(d time.Duration) {
	steady := time.Since(c.clock.start)
	c.clock.at(steady, steady+d)
}
