// SPDX-License-Identifier: Apache-2.0

package statedir_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// fuseDir mounts something by FUSE, which stands for all network filesystems
// here. It skips where that cannot be, and fails with SREGFS_NOSKIP=1.
func fuseDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	src := filepath.Join(dir, "src")
	for _, err := range []error{os.Mkdir(mnt, 0o700), os.Mkdir(src, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"mksquashfs", src, image, "-quiet", "-no-progress"},
		{"squashfuse", image, mnt},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("SREGFS_NOSKIP") == "1" {
				t.Fatalf("%s: %v\n%s", args[0], err, out)
			}
			t.Skipf("%s: %v", args[0], err)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("fusermount3", "-u", mnt).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v\n%s", err, out)
		}
	})
	return mnt
}
