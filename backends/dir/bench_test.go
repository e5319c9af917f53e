// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// tenThousand is a store with so many tags of one image, all with facts.
func tenThousand(b *testing.B) *client {
	b.Helper()
	c := &client{path: b.TempDir()}
	if err := os.MkdirAll(filepath.Join(c.path, "c/i"), 0o755); err != nil {
		b.Fatal(err)
	}
	t, err := c.open()
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	for i := range 10_000 {
		hex := sum(fmt.Append(nil, i))
		path := layout(backends.Ref{Collection: "c", Name: "i", Tag: fmt.Sprint(i)}, hex, ".sif")
		if err := os.WriteFile(filepath.Join(c.path, path), fmt.Append(nil, i), 0o755); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(c.path, path))
		if err != nil {
			b.Fatal(err)
		}
		t.remember("c/i", fact{
			file: filepath.Base(path), digest: "sha256:" + hex, size: info.Size(), modTime: info.ModTime().UnixNano(), inode: inode(info),
		})
	}
	b.ResetTimer()
	return c
}

func BenchmarkList_10000(b *testing.B) {
	c := tenThousand(b)
	for range b.N {
		all, err := backends.Collect(c.List(b.Context(), "c"))
		if err != nil || len(all) != 10_000 || all[0].Image.Digest == "" {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkStat_10000(b *testing.B) {
	c := tenThousand(b)
	for range b.N {
		if img, err := c.Stat(b.Context(), backends.Ref{Collection: "c", Name: "i", Tag: "9876"}); err != nil || img.Digest == "" {
			b.Fatal(img, err)
		}
	}
}
