// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSecretFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "lab")
	names := func() []string {
		t.Helper()
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range all {
			names = append(names, e.Name())
		}
		return names
	}
	if err := RemoveSecret(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RemoveSecret of nothing gives %v", err)
	}
	// What lies there already, with whatever mode, or as a link, is replaced.
	other := filepath.Join(dir, "other")
	if err := errors.Join(os.WriteFile(other, []byte("other"), 0o644), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(path, []byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "other" {
		t.Errorf("where the link led: %q, %v", text, err)
	}
	// What a killed process has left goes too, and nothing else.
	for _, name := range []string{".lab-123", ".lab-2-123", ".lab-x", "lab-123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveSecret(path); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{".lab-2-123", ".lab-x", "lab-123", "other"}, names()); diff != "" {
		t.Error(diff)
	}
}
