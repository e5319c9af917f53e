// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
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
