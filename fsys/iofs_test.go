// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// The tree is a file system as Go's own packages want it.
func TestIO(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	here, there := fsystest.Image(5000, 1), fsystest.Image(300_000, 2)
	if err := os.MkdirAll(filepath.Join(w.Local, "c", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Local, "c", "x", "1.sif"), here, 0o644); err != nil {
		t.Fatal(err)
	}
	w.Service.Put("a/b/y:2", there)
	root := w.FS.IO(t.Context())
	if err := fstest.TestFS(root, "local/c/x:1.sif", "web/a/b/y:2.sif"); err != nil {
		t.Error(err)
	}
	for path, want := range map[string][]byte{"local/c/x:1.sif": here, "web/a/b/y+2.sif": there} {
		if got, err := fs.ReadFile(root, path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	f, err := root.Open("web/a/b/y:2.sif")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := make([]byte, 100)
	if _, err := f.(io.ReaderAt).ReadAt(part, 200_000); err != nil || !bytes.Equal(part, there[200_000:200_100]) {
		t.Errorf("a part: %v", err)
	}
	// What somebody writes is no file yet.
	dir, err := walk(t, w.FS, "local/c")
	if err != nil {
		t.Fatal(err)
	}
	_, draft, err := dir.(*fsys.Dir).Create(t.Context(), "new:1.sif", 0o644, fsys.Caller{}, fsys.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close(t.Context())
	if _, err := fs.Stat(root, "local/c/new:1.sif"); err == nil {
		t.Error("a draft is there")
	}
	if names, err := fs.Glob(root, "local/c/*"); err != nil || len(names) != 1 {
		t.Errorf("local/c has %q, %v", names, err)
	}
}
