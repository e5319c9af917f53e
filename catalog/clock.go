// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"sync/atomic"
	"time"
)

// A clock never goes back, even if the time of day is set back, and goes on while the
// machine sleeps. Go's monotonic clock stands still then (golang/go#24595), so that a
// listing from the evening would count as fresh in the morning.
type clock struct {
	start time.Time    // for the monotonic clock
	wall  time.Time    // the same as a time of day
	ahead atomic.Int64 // the most by which the time of day was ahead of the monotonic clock
}

func newClock() *clock {
	now := time.Now()
	return &clock{start: now, wall: now.Round(0)}
}

// now is the time of day, or later if that was set back since the process began.
// Stored times of an earlier run compare with it as times of day.
func (c *clock) now() time.Time {
	t := time.Now()
	return c.at(t.Sub(c.start), t.Round(0).Sub(c.wall))
}

// at is now, given what the monotonic clock and the time of day counted since the start.
func (c *clock) at(steady, day time.Duration) time.Time {
	ahead := int64(day - steady)
	for {
		most := c.ahead.Load()
		if ahead <= most {
			return c.wall.Add(steady + time.Duration(most))
		}
		if c.ahead.CompareAndSwap(most, ahead) {
			return c.wall.Add(steady + time.Duration(ahead))
		}
	}
}
