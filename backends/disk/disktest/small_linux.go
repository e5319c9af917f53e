// SPDX-License-Identifier: Apache-2.0

// Package disktest gives tests a small disk.
package disktest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Small mounts a disk of that size, as tmpfs takes it ("8m"), until the test ends. Only
// root can: without, the test is skipped, or fails where SREGFS_NOSKIP is 1.
func Small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatalf("mount tmpfs: %v", err)
		}
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		// Lazily: a child that another test starts has our descriptors until it is the
		// other program.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
