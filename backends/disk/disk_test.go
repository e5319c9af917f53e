// SPDX-License-Identifier: Apache-2.0

package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends/disk"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]disk.Replacement{
		"durable":    {},
		"old or new": {Safety: disk.OldOrNew, Suffix: ".tmp"},
		"volatile":   {Safety: disk.Volatile, Perm: 0o640},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			if how.Suffix != "" { // left by a crash, and longer
				if err := os.WriteFile(path+how.Suffix, []byte("half of what was to be"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range []string{"one", "another", ""} {
				if err := disk.Replace(path, []byte(want), how); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != want {
					t.Errorf("the file holds %q (%v), want %q", got, err, want)
				}
			}
			info, err := os.Lstat(path)
			want := how.Perm
			if want == 0 {
				want = 0o600
			}
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("its mode is %v (%v), want %v", info.Mode(), err, want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("the directory holds %v (%v)", left, err)
			}
		})
	}
}

// What cannot be replaced stays, and nothing is left beside it.
func TestReplace_fails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := disk.Replace(path, []byte("x"), disk.Replacement{}); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v (%v)", left, err)
	}
	if err := disk.Replace(filepath.Join(dir, "no", "file"), nil, disk.Replacement{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Replace in no folder = %v", err)
	}
}

// A link that somebody puts where the temporary file could be is not followed.
func TestReplace_newName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if err := disk.Replace(path, []byte("x"), disk.Replacement{}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file is %v (%v)", info, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link was followed (%v)", err)
	}
}

func TestSyncDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := disk.SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := disk.SyncDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir of nothing = %v", err)
	}
}
