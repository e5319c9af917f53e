// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// BenchmarkRead reads an image that is whole, in pieces of 1 MiB and in random
// pieces of 4 KiB: the native file, through passthrough, through the page cache
// of the mount, and through the process.
func BenchmarkRead(b *testing.B) {
	w := fsystest.New(b, fsystest.Options{})
	const size = 256 << 20
	content := fsystest.Image(size, 1)
	native := filepath.Join(b.TempDir(), "native")
	if err := os.WriteFile(native, content, 0o600); err != nil {
		b.Fatal(err)
	}
	dir, _ := fusetest.Mount(b, w.FS, fusefs.Options{})
	fusetest.MustShell(b, dir, fmt.Sprintf("mkdir local/c && cp %q local/c/i:1.sif", native))
	slow, _ := fusetest.Mount(b, w.FS, fusefs.Options{NoPassthrough: true})
	for name, path := range map[string]string{
		"native":      native,
		"passthrough": filepath.Join(dir, "local/c/i:1.sif"),
		"pages":       filepath.Join(slow, "local/c/i:1.sif"),
	} {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		b.Run(name+"/sequential", func(b *testing.B) { sequential(b, f, int64(len(content))) })
		b.Run(name+"/random", func(b *testing.B) { random(b, f, int64(len(content))) })
	}
	b.Run("process/sequential", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			f, err := os.Open(filepath.Join(slow, "local/c/i:1.sif"))
			if err != nil {
				b.Fatal(err)
			}
			drop(b, f)
			b.StartTimer()
			b.SetBytes(int64(len(content)))
			if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
}

func sequential(b *testing.B, f *os.File, size int64) {
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	var off int64
	for b.Loop() {
		if off+int64(len(buf)) > size {
			off = 0
		}
		if _, err := f.ReadAt(buf, off); err != nil {
			b.Fatal(err)
		}
		off += int64(len(buf))
	}
}

func random(b *testing.B, f *os.File, size int64) {
	buf := make([]byte, 4096)
	for b.Loop() {
		if _, err := f.ReadAt(buf, rand.Int64N(size/4096-1)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCopyIn is cp to the local remote: bytes to the spool, their digest, and
// the publishing.
func BenchmarkCopyIn(b *testing.B) {
	w := fsystest.New(b, fsystest.Options{})
	native := filepath.Join(b.TempDir(), "native")
	content := fsystest.Image(128<<20, 1)
	if err := os.WriteFile(native, content, 0o600); err != nil {
		b.Fatal(err)
	}
	dir, _ := fusetest.Mount(b, w.FS, fusefs.Options{})
	fusetest.MustShell(b, dir, "mkdir local/c")
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		fusetest.MustShell(b, dir, fmt.Sprintf("cp %q local/c/i:1.sif", native))
	}
}

// BenchmarkList lists directories of images whose names are known, with
// getdents(2) into 32 KiB as ls and find do: the first time through the process,
// and again from the kernel's cache.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			if n > 100_000 && testing.Short() {
				b.Skip("takes a minute")
			}
			w := fsystest.New(b, fsystest.Options{})
			for i := range n {
				w.Service.Put(fmt.Sprintf("big/image-with-a-name:%d", i), nil)
			}
			dir, _ := fusetest.Mount(b, w.FS, fusefs.Options{})
			path := filepath.Join(dir, "web/big")
			if got := getdents(b, path); got != n {
				b.Fatal(got)
			}
			b.Run("first", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					forgetCaches(b)
					b.StartTimer()
					getdents(b, path)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/name")
			})
			b.Run("again", func(b *testing.B) {
				for b.Loop() {
					getdents(b, path)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/name")
			})
		})
	}
}

// getdents reads all names of a directory and returns their number.
func getdents(b *testing.B, path string) int {
	b.Helper()
	// A signal of the Go runtime can end an opening that asks the registry.
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	for err == syscall.EINTR {
		fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer syscall.Close(fd)
	buf := make([]byte, 32<<10)
	names := -2 // "." and ".."
	for {
		n, err := syscall.ReadDirent(fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
		if n <= 0 {
			return names
		}
		for rest := buf[:n]; len(rest) > 0; names++ {
			rest = rest[binary.NativeEndian.Uint16(rest[16:]):] // d_reclen
		}
	}
}

// forgetCaches makes the kernel forget names and inodes, where we may.
func forgetCaches(b *testing.B) {
	b.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		b.Skip(err)
	}
}

// BenchmarkStat asks for the attributes of 10,000 images one after the other,
// from one thread of another process: names that the kernel keeps, names that it
// has to ask for, and names that are not there.
func BenchmarkStat(b *testing.B) {
	const n = 10_000
	w := fsystest.New(b, fsystest.Options{})
	for i := range n {
		w.Service.Put(fmt.Sprintf("c/i:%d", i), []byte("content"))
	}
	kept, _ := fusetest.Mount(b, w.FS, fusefs.Options{NameTimeout: time.Hour})
	asked, _ := fusetest.Mount(b, w.FS, fusefs.Options{NameTimeout: 1})
	for _, bm := range []struct{ name, pattern string }{
		{"kept", filepath.Join(kept, "web/c/i:%d.sif")},
		{"asked", filepath.Join(asked, "web/c/i:%d.sif")},
		{"absent", filepath.Join(asked, "web/c/none:%d.sif")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			childStat([]string{bm.pattern, "1", strconv.Itoa(n)}) // the first time the registry is asked
			rounds := strconv.Itoa(b.N/n + 1)
			out, err := child(b, "stat", bm.pattern, rounds, strconv.Itoa(n)).Output()
			if err != nil {
				b.Fatal(err)
			}
			perSecond, err := strconv.ParseFloat(string(out), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(perSecond, "stat/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkMemory has the kernel know 100,000 images, and tells what each costs
// this process, before and after the kernel forgets them.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	w := fsystest.New(b, fsystest.Options{})
	for i := range n {
		w.Service.Put(fmt.Sprintf("big/image-with-a-name:%d", i), []byte("content"))
	}
	// The facts become known, through a mount that does not last.
	dir := b.TempDir()
	m, err := fusefs.Mount(b.Context(), dir, w.FS, fusefs.Options{})
	if err != nil {
		b.Fatal(err)
	}
	fusetest.MustShell(b, dir, "ls -l web/big >/dev/null")
	if err := m.Unmount(); err != nil {
		b.Fatal(err)
	}
	dir, _ = fusetest.Mount(b, w.FS, fusefs.Options{})
	before := heap()
	for b.Loop() {
		fusetest.MustShell(b, dir, "ls -l web/big >/dev/null")
	}
	b.ReportMetric(float64(heap()-before)/n, "B/inode")
	forgetCaches(b)
	for range 100 {
		if heap()-before < 50*n {
			break
		}
	}
	b.ReportMetric(float64(heap()-before)/n, "B/forgotten")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkOpen opens an image that is whole, reads 4 KiB and closes it, from one
// thread of another process: the native file, with passthrough and without.
func BenchmarkOpen(b *testing.B) {
	w := fsystest.New(b, fsystest.Options{})
	w.Service.Put("c/i:1", fsystest.Image(1<<20, 1))
	if _, err := w.Verbs().Pull(b.Context(), "web://c/i:1", verbs.PullOptions{}, nil); err != nil {
		b.Fatal(err)
	}
	fast, _ := fusetest.Mount(b, w.FS, fusefs.Options{})
	slow, _ := fusetest.Mount(b, w.FS, fusefs.Options{NoPassthrough: true})
	native := filepath.Join(b.TempDir(), "native")
	if err := os.WriteFile(native, w.Service.Get("c/i:1"), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct{ name, path string }{
		{"native", native},
		{"passthrough", filepath.Join(fast, "web/c/i:1.sif")},
		{"process", filepath.Join(slow, "web/c/i:1.sif")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			out, err := child(b, "open", bm.path, strconv.Itoa(b.N)).Output()
			if err != nil {
				b.Fatal(err)
			}
			took, err := strconv.ParseFloat(string(out), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(took, "ns/op")
		})
	}
}

// childOpen opens, reads and closes a file n times and prints what one took, in
// nanoseconds.
func childOpen(args []string) error {
	n, _ := strconv.Atoi(args[1])
	buf := make([]byte, 4096)
	start := time.Now()
	for range n {
		fd, err := syscall.Open(args[0], syscall.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if _, err := syscall.Pread(fd, buf, 0); err != nil {
			return err
		}
		if err := syscall.Close(fd); err != nil {
			return err
		}
	}
	fmt.Print(float64(time.Since(start).Nanoseconds()) / float64(n))
	return nil
}

// childStat asks for the attributes of n names, some times, and prints how many
// it got in a second.
func childStat(args []string) error {
	rounds, _ := strconv.Atoi(args[1])
	n, _ := strconv.Atoi(args[2])
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(args[0], i)
	}
	var st syscall.Stat_t
	start := time.Now()
	for range rounds {
		for _, name := range names {
			if err := syscall.Stat(name, &st); err != nil && err != syscall.ENOENT {
				return err
			}
		}
	}
	fmt.Print(float64(rounds*n) / time.Since(start).Seconds())
	return nil
}

// drop empties the page cache of a file.
func drop(b *testing.B, f *os.File) {
	b.Helper()
	if err := fadviseDontNeed(f); err != nil {
		b.Fatal(err)
	}
}
