// SPDX-License-Identifier: Apache-2.0

package badger_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/index"
)

// small returns record i as the catalogue would have it: some 150 bytes.
func small(i int) index.KV {
	return index.KV{
		Key: fmt.Appendf(nil, "l\x00lab\x00vsoch/collection%03d\x00image%06d\x00latest", i%100, i),
		Value: fmt.Appendf(nil, "sha256:%032x%032x 1719842%06d %d https://registry.example/v2/",
			uint64(i)*0x9e3779b97f4a7c15, uint64(i)*0xbf58476d1ce4e5b9, i, i*4096),
	}
}

// filled returns a closed index with n small records.
func filled(b *testing.B, n int) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "index")
	db := open(b, dir)
	batch := make([]index.KV, 0, 10_000)
	for i := range n {
		if batch = append(batch, small(i)); len(batch) == cap(batch) || i == n-1 {
			if err := db.Apply(batch...); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkGet(b *testing.B) {
	const n = 100_000
	db := open(b, filled(b, n))
	for b.Loop() {
		if _, err := db.Get(small(rand.IntN(n)).Key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := open(b, filled(b, n))
			b.ReportAllocs()
			for b.Loop() {
				got := 0
				for _, err := range db.Scan([]byte("l\x00lab\x00"), nil) {
					if err != nil {
						b.Fatal(err)
					}
					got++
				}
				if got != n {
					b.Fatalf("%d records, want %d", got, n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "index"))
			changes := make([]index.KV, n)
			for i := 0; b.Loop(); i++ {
				for j := range changes {
					changes[j] = small((i*n + j) % 1_000_000)
				}
				if err := db.Apply(changes...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

// BenchmarkOpen opens an index, gets one record and closes it: what a command
// without a running mount does.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{0, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := filled(b, max(n, 1))
			var closing int64
			for b.Loop() {
				db, err := badger.Open(dir, badger.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := db.Get(small(0).Key); err != nil {
					b.Fatal(err)
				}
				before := b.Elapsed()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				closing += int64(b.Elapsed() - before)
			}
			b.StopTimer()
			b.ReportMetric(float64(closing)/float64(b.N)/1e6, "ms-closing")
			anon, peak := memory(b, dir)
			b.ReportMetric(anon, "MB-anon")
			b.ReportMetric(peak, "MB-peak")
		})
	}
}

// memory returns, in MB, what a process takes that has opened an index and read
// all of it: its own memory, and the most it had with the files it maps.
func memory(b *testing.B, dir string) (anon, peak float64) {
	b.Helper()
	c := start(b, dir)
	c.do("scan 1")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		b.Logf("memory is not known: %v", err)
	}
	number := func(name string) (kb float64) {
		_, after, _ := strings.Cut(string(text), name+":")
		fmt.Sscan(after, &kb)
		return kb / 1024
	}
	c.must(b, "ok", "close")
	return number("RssAnon"), number("VmHWM")
}
