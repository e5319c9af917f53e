// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk/disktest"
)

// Whoever copies an image to where nothing can be stored is told before the first byte.
func TestCheckPush(t *testing.T) {
	frozen := disktest.Small(t, "1m")
	if err := unix.Mount("", frozen, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	others := t.TempDir()
	for _, d := range []string{filepath.Dir(others), others} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	used, root := newStore(t)
	push(t, used, ref, source("text"))
	if os.Geteuid() == 0 { // as an ordinary user, this thread alone
		if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o555), os.Chmod(filepath.Join(root, private), 0o777)); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setfsuid(0) // it was allowed before
	}
	for path, want := range map[string]error{
		frozen: backends.ErrReadOnly, filepath.Join(frozen, "later", "made"): backends.ErrReadOnly,
		others: fs.ErrPermission, root: nil, filepath.Join(os.TempDir(), "sregfs-not-made", "yet"): nil,
	} {
		c := backends.NewClient("store", &client{path: path}, backends.ClientOptions{})
		if err := c.CheckPush(ref); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
