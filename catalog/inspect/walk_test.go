// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The table of files is what unsquashfs lists, for each way to pack it.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for path, n := range map[string]int{"a": 5, "a.b/x": 0, "a-b": 3 << 20, "bin/tool": 70_000, "deep/er/still/file": 1} {
		at := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, bytes.Repeat([]byte("x"), n), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 { // more than one block of each table
		if err := os.WriteFile(filepath.Join(tree, "deep", fmt.Sprintf("%04d-%s", i, strings.Repeat("n", 40))), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../somewhere", filepath.Join(tree, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	for _, codec := range []string{"gzip", "zstd", "xz", "lz4"} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "image.simg")
			if out, err := exec.CommandContext(t.Context(), "mksquashfs", tree, file, "-comp", codec, "-quiet", "-no-progress").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			out, err := exec.CommandContext(t.Context(), "unsquashfs", "-llnumeric", "-dest", "", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for line := range strings.Lines(string(out)) {
				fields := strings.Fields(line) // mode, owner, size, date, time, path, perhaps "-> target"
				if len(fields) < 6 {
					continue // the root
				}
				path := strings.TrimPrefix(fields[5], "/")
				size := "0"
				if fields[0][0] == '-' {
					size = fields[2]
				}
				want = append(want, strings.Join(append([]string{fields[0][:1], fields[1], size, path}, fields[6:]...), " "))
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			last := ""
			for f, err := range Files(t.Context(), f, info.Size()) {
				if err != nil {
					t.Fatal(err)
				}
				if last != "" && ComparePaths(last, f.Path) >= 0 {
					t.Errorf("%s comes after %s", f.Path, last)
				}
				last = f.Path
				letter := map[string]string{"file": "-", "dir": "d", "link": "l"}[f.Type]
				line := fmt.Sprintf("%s %d/%d %d %s", letter, f.UID, f.GID, f.Size, f.Path)
				if f.Target != "" {
					line += " -> " + f.Target
				}
				got = append(got, line)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%d files, want %d; the first are\n%s\nwant\n%s", len(got), len(want), strings.Join(got[:min(9, len(got))], "\n"), strings.Join(want[:min(9, len(want))], "\n"))
			}
		})
	}
}
