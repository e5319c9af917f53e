// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A disk that takes not one byte is an error like any other, not the end of the
// copy.
func TestCloneFile_fullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := cloneFile(t.Context(), full, src); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("cloneFile = %v, want %v", err, syscall.ENOSPC)
	}
}

// A copy has no name before it is whole, and takes none that is taken unless it is
// told to. That holds on file systems without unnamed files too.
func TestNewFile(t *testing.T) {
	t.Parallel()
	for _, unnamed := range []bool{true, false} {
		t.Run(map[bool]string{true: "unnamed", false: "named"}[unnamed], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			to := filepath.Join(dir, "image")
			write := func(text string, replace bool) error {
				n, err := newCopy(dir)
				if err != nil {
					t.Fatal(err)
				}
				if !unnamed && n.name == "" {
					n.drop()
					f, err := os.CreateTemp(dir, ".sreg-*.part")
					if err != nil {
						t.Fatal(err)
					}
					n = &newFile{File: f, dir: dir, name: f.Name()}
				}
				defer n.drop()
				if _, err := n.WriteString(text); err != nil {
					t.Fatal(err)
				}
				return n.become(to, replace)
			}
			if err := write("one", false); err != nil {
				t.Errorf("become: %v", err)
			}
			if err := write("two", false); !errors.Is(err, fs.ErrExist) {
				t.Errorf("become over a file: %v", err)
			}
			if got, err := os.ReadFile(to); err != nil || string(got) != "one" {
				t.Errorf("the file holds %q, %v", got, err)
			}
			if err := write("three", true); err != nil {
				t.Errorf("replace: %v", err)
			}
			if got, err := os.ReadFile(to); err != nil || string(got) != "three" {
				t.Errorf("the file holds %q, %v", got, err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}
