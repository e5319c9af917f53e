// SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/dir"
)

// A path at which something else lies is a mistake, and no empty store.
func TestList_file(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := backendtest.Open(t, dir.Open, nil, map[string]any{"path": path})
	if got, err := backends.Collect(b.(backends.Lister).List(t.Context(), "")); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("List = %v, %v, want fs.ErrInvalid", got, err)
	}
}

// A directory that cannot be read is no empty one: it is listed, and listing it is
// an error.
func TestList_unreadable(t *testing.T) {
	store := t.TempDir()
	for _, d := range []string{store, filepath.Dir(store)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	closed := filepath.Join(store, "lab", "group", "closed")
	if err := os.MkdirAll(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	b := backendtest.Open(t, dir.Open, nil, map[string]any{"path": store})
	t.Cleanup(func() { os.Chmod(closed, 0o755) })
	if os.Geteuid() == 0 { // as an ordinary user, this thread alone
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setfsuid(0) // it was allowed before
	}
	if got := backendtest.Names(t, b.(backends.Lister), "lab"); !slices.Contains(got, "lab/group/") {
		t.Errorf("lab holds %q, and not lab/group/", got)
	}
	got, err := backends.Collect(b.(backends.Lister).List(t.Context(), "lab/group"))
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("List(lab/group) = %v, %v", got, err)
	}
}
