// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkBlobReopen opens a whole blob again and again, as starting containers does.
func BenchmarkBlobReopen(b *testing.B) {
	r := newRegistry(b)
	c := openCache(b, b.TempDir(), Options{})
	client, img := r.client(b), r.image("a", randomBytes(1, mib))
	first := openBlob(b, c, client, img)
	if err := first.Wait(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	first.Close()
	b.ReportAllocs()
	for b.Loop() {
		blob, err := c.Blob(b.Context(), client, img)
		if err != nil {
			b.Fatal(err)
		}
		blob.Close()
	}
}

// BenchmarkTrim evicts one blob of many.
func BenchmarkTrim(b *testing.B) {
	const blobs = 20_000
	dir := b.TempDir()
	for i := range blobs {
		sum := sha256Of(fmt.Append(nil, i))
		at := layout(dir).file(Key(sum))
		if err := os.MkdirAll(filepath.Dir(at), dirMode); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(at, make([]byte, 4096), 0o555); err != nil {
			b.Fatal(err)
		}
	}
	c := openCache(b, dir, Options{MaxBytes: blobs * 4096, NoBackground: true})
	n := 0
	for b.Loop() {
		if err := c.Adopt(adoptable(b, n), sha256Of(fmt.Append(nil, "new", n)), 4096); err != nil {
			b.Fatal(err)
		}
		c.Trim()
		n++
	}
}

func adoptable(b *testing.B, n int) string {
	path := filepath.Join(b.TempDir(), fmt.Sprint(n))
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
