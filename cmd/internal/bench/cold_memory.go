// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"golang.org/x/sys/unix"
)

// touchedMemory is how much memory is used once before anything is measured.
const touchedMemory = 6 // GiB

// touchMemory uses memory and gives it back. In a virtual machine memory that
// was never used costs a fault on the host, some microseconds a page: what is
// measured first, and writes the most to the page cache, would pay for it.
func touchMemory() error {
	size := min(touchedMemory, gib(value("/proc/meminfo", "MemAvailable"))/2) << 30
	if size == 0 {
		return nil
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(mem); i += 4 << 10 {
		mem[i] = 1
	}
	return unix.Munmap(mem)
}
