// SPDX-License-Identifier: Apache-2.0

package records

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRecords_damaged(t *testing.T) {
	t.Parallel()
	r := New(t.TempDir())
	path := filepath.Join(r.dir, pinsFile)
	if err := os.WriteFile(path, []byte("[{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Pin(Pin{Key: "sha256:00", URI: "lab://a/b:1"}); err != nil {
		t.Fatal(err)
	}
	again := New(r.dir)
	if got := again.Pins(); len(got) != 1 || got[0].Key != "sha256:00" {
		t.Errorf("pins = %v", got)
	}
	if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != "[{torn" {
		t.Errorf("the damaged file: %q, %v", kept, err)
	}
}

// Two programs may share the records: neither undoes what the other wrote.
func TestRecords_shared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := New(dir), New(dir)
	for i, r := range []*Records{a, b, a, b} {
		if err := r.Make("lab", string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	fresh := New(dir)
	if got := len(fresh.Children("lab", "")); got != 4 {
		t.Errorf("%d collections, want 4", got)
	}
	if err := New(filepath.Join(dir, pinsFile, "x")).Pin(Pin{Key: "k"}); err != nil && errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file of ours reads as a missing Image: %v", err)
	}
}
