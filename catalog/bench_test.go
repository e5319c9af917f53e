// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// Benchmarks of one remote with 100,000 images, 10,000 of them in one collection.
const (
	benchImages = 100_000
	benchTags   = 10_000
)

// benchBench lists everything once, into a store on the disk.
func benchBench(b *testing.B) *bench {
	b.Helper()
	svc := newService()
	for i := range benchTags {
		svc.put(fmt.Sprintf("many/tags:%05d", i), nil)
	}
	for i := range benchImages - benchTags {
		svc.put(fmt.Sprintf("group%d/image%05d:1.0", i/10_000, i%10_000), nil)
	}
	db, err := badger.Open(b.TempDir(), badger.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	bb := newBench(b, svc, func(bb *bench) { bb.store.Store = db })
	if n := drain(b, bb, "", true); n != benchImages {
		b.Fatalf("%d images listed", n)
	}
	return bb
}

func drain(b *testing.B, bb *bench, query string, refresh bool) int {
	n := 0
	for _, err := range bb.Images(context.Background(), verbs.ImagesOptions{Query: query, Refresh: refresh}) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	return n
}

func BenchmarkCatalog(b *testing.B) {
	bb := benchBench(b)
	ctx := context.Background()
	b.Run("List/10000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for range bb.List(ctx, "lab", "many") {
				n++
			}
			if n != benchTags {
				b.Fatalf("%d entries", n)
			}
		}
	})
	b.Run("Images/100000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n := drain(b, bb, "", false); n != benchImages {
				b.Fatalf("%d images", n)
			}
		}
	})
	b.Run("Search/one of 100000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n := drain(b, bb, "group7/image00042", false); n != 1 {
				b.Fatalf("%d images", n)
			}
		}
	})
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		ref := backends.Ref{Collection: "many", Name: "tags", Tag: "05000"}
		for b.Loop() {
			if _, err := bb.Lookup(ctx, "lab", ref); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Refresh/10000 unchanged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := bb.Refresh(ctx, "lab", "many"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
