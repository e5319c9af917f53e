// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

const manyImages = 10_000

// The shapes of a store with many images.
var shapes = []struct {
	name string
	ref  func(n int) backends.Ref
}{
	{"tags", func(n int) backends.Ref { return backends.Ref{Collection: "c", Name: "i", Tag: fmt.Sprint(n)} }},
	{"images", func(n int) backends.Ref { return backends.Ref{Collection: "c", Name: fmt.Sprint("i", n), Tag: "1"} }},
}

// fillStore makes a store with so many images, all with facts.
func fillStore(b *testing.B, shape func(n int) backends.Ref) *client {
	b.Helper()
	c := &client{path: b.TempDir()}
	t, err := c.open()
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	for i := range manyImages {
		hex := sum(fmt.Append(nil, i))
		path := layout(shape(i), hex, ".sif")
		if err := os.MkdirAll(filepath.Join(c.path, filepath.Dir(path)), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.path, path), fmt.Append(nil, i), 0o755); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(c.path, path))
		if err != nil {
			b.Fatal(err)
		}
		t.remember(filepath.Dir(path), fact{
			file: filepath.Base(path), digest: "sha256:" + hex, size: info.Size(), modTime: info.ModTime().UnixNano(), inode: inode(info),
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	return c
}

func BenchmarkList(b *testing.B) {
	for _, s := range shapes {
		c := fillStore(b, s.ref)
		for _, first := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/first=%v", s.name, first), func(b *testing.B) {
				for b.Loop() {
					if first {
						c = &client{path: c.path}
					}
					all, err := backends.Collect(c.List(b.Context(), "c"))
					if err != nil || len(all) != manyImages || all[0].Image.Digest == "" {
						b.Fatal(len(all), err)
					}
				}
			})
		}
	}
}

// BenchmarkStat asks for every name in turn, or for names that are not there.
func BenchmarkStat(b *testing.B) {
	for _, s := range shapes {
		c := fillStore(b, s.ref)
		for _, missing := range []bool{false, true} {
			ask := func(b *testing.B, n int) {
				ref := s.ref(n % manyImages)
				if missing {
					ref = s.ref(manyImages + n)
				}
				img, err := c.Stat(b.Context(), ref)
				if errors.Is(err, fs.ErrNotExist) != missing || !missing && img.Digest == "" {
					b.Error(img, err)
				}
			}
			b.Run(fmt.Sprintf("%s/missing=%v", s.name, missing), func(b *testing.B) {
				n := 0
				for b.Loop() {
					ask(b, n)
					n++
				}
			})
			b.Run(fmt.Sprintf("%s/missing=%v/parallel", s.name, missing), func(b *testing.B) {
				var n atomic.Int64
				b.SetParallelism(4)
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						ask(b, int(n.Add(1)))
					}
				})
			})
		}
	}
}

// BenchmarkIsCollection asks what a lookup of a directory does.
func BenchmarkIsCollection(b *testing.B) {
	c := fillStore(b, shapes[1].ref)
	for b.Loop() {
		for _, err := range c.List(b.Context(), "c") {
			if err != nil {
				b.Fatal(err)
			}
			break
		}
	}
}
