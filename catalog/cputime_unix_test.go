// SPDX-License-Identifier: Apache-2.0

//go:build unix

package catalog_test

import (
	"syscall"
	"time"
)

// cpuTime is what the process has had of the processors: on a busy machine it says
// more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
