// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/sregfs/sregfs/backends/disk"
)

// A headroom keeps the spool from filling the disk to the last byte: the journal of
// what is there already, and other programs, need some.
type headroom struct {
	dir     string
	reserve int64 // bytes to leave

	mu   sync.Mutex
	left int64 // bytes that may be written before the disk is asked again
}

// roomStep bounds how much is written between two looks at the disk, and so how
// far other writers can push it below the reserve.
const roomStep = 16 << 20

// take allows n bytes to be written. Errors: ENOSPC.
func (r *headroom) take(n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n <= r.left {
		r.left -= n
		return nil
	}
	r.left = 0
	free, _, ok := disk.Space(r.dir)
	if !ok {
		return nil // the disk itself will say
	}
	if free-n < r.reserve {
		return fmt.Errorf("spool: %w: %d MiB left in %s, of which %d are kept free",
			syscall.ENOSPC, free>>20, r.dir, r.reserve>>20)
	}
	r.left = min(free-n-r.reserve, roomStep)
	return nil
}
