// SPDX-License-Identifier: Apache-2.0

package fsys_test

import (
	"fmt"
	"testing"

	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
)

// collection returns a directory of n images whose names are known.
func collection(b *testing.B, n int) *fsys.Dir {
	b.Helper()
	w := fsystest.New(b, fsystest.Options{})
	for i := range n {
		w.Service.Put(fmt.Sprintf("big/image-with-a-name:%d", i), fsystest.Image(4096, 1)[:64])
	}
	web, err := w.FS.Root().Lookup(b.Context(), "web", fsys.Caller{})
	if err != nil {
		b.Fatal(err)
	}
	big, err := web.(*fsys.Dir).Lookup(b.Context(), "big", fsys.Caller{})
	if err != nil {
		b.Fatal(err)
	}
	return big.(*fsys.Dir)
}

// BenchmarkListing reads a directory of 100,000 names, catalogue included.
func BenchmarkListing(b *testing.B) {
	const n = 100_000
	dir := collection(b, n)
	b.ReportAllocs()
	for b.Loop() {
		l, names := dir.OpenListing(), 0
		for {
			e, err := l.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if e == nil {
				break
			}
			names++
		}
		l.Close()
		if names != n {
			b.Fatal(names)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/name")
}

// BenchmarkLookup looks up an image whose facts are known, and a name that is
// known not to be there.
func BenchmarkLookup(b *testing.B) {
	dir := collection(b, 1000)
	for _, name := range []string{"image-with-a-name:7.sif", "image-with-a-name:nope.sif", ".git"} {
		b.Run(name, func(b *testing.B) {
			_, want := dir.Lookup(b.Context(), name, fsys.Caller{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := dir.Lookup(b.Context(), name, fsys.Caller{}); (err == nil) != (want == nil) {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens and closes an image that is whole here.
func BenchmarkOpen(b *testing.B) {
	w := fsystest.New(b, fsystest.Options{})
	w.Service.Put("c/i:1", fsystest.Image(64<<10, 1))
	if _, err := w.Verbs().Pull(b.Context(), "web://c/i:1", verbs.PullOptions{}, nil); err != nil {
		b.Fatal(err)
	}
	var node fsys.Node = w.FS.Root()
	for _, name := range []string{"web", "c", "i:1.sif"} {
		var err error
		if node, err = node.(*fsys.Dir).Lookup(b.Context(), name, fsys.Caller{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		blob, err := node.(*fsys.Image).Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		blob.Close()
	}
}
