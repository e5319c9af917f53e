// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A workload does something with the file or directory at path and returns a
// figure. It runs in a process of its own, which may be another user's in
// another mount namespace; starting that process is not measured.
type workload func(path string) float64

// workloads are those that a child process can be asked for. Those of attributes
// take a directory and, after a line feed, a file of names in it.
var workloads = map[string]workload{
	"sequential":       sequential(1<<20, 0),
	"small":            sequential(512, 32<<20),
	"random 4K":        random(4<<10, 100_000, 1),
	"random 4K x32":    random(4<<10, 200_000, 32),
	"random 128K":      random(128<<10, 10_000, 1),
	"random 128K x32":  random(128<<10, 20_000, 32),
	"mapped":           mapped,
	"open":             openClose,
	"list":             list,
	"list with stat":   listWithStat,
	"stat":             stats(1, "", nil),
	"stat x8":          stats(8, "", nil),
	"stat again":       statAgain,
	"stat all":         statFacts,
	"stat of no name":  stats(1, "no-", unix.ENOENT),
	"inflate":          inflateAlone,
	"inflate-stdin":    inflateInput,
	"drop, list":       dropped(list),
	"drop, sequential": dropped(sequential(1<<20, 0)),
	"drop, 4K":         dropped(random(4<<10, 10_000, 1)),
	"drop, 128K":       dropped(random(128<<10, 1_500, 1)),
}

// measureHere runs a workload in this process.
func measureHere(name, path string) float64 {
	w := workloads[name]
	if w == nil {
		check(fmt.Errorf("no workload %q", name))
	}
	return w(path)
}

// measure runs a workload in a child process, with the words of as before it.
func (b *bench) measure(ctx context.Context, as []string, name, path string) float64 {
	return must(strconv.ParseFloat(output(ctx, nil, slices.Concat(as, []string{b.exe("bench"), "-measure", name, path})...), 64))
}

// dropped first takes away what the kernel keeps of path itself, pages or
// directory entries. What lies behind a mount is another file: its pages stay.
func dropped(w workload) workload {
	return func(path string) float64 {
		f := must(os.Open(path))
		check(errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()))
		return w(path)
	}
}

// rate returns how many of n things were done a second.
func rate(n int64, start time.Time) float64 { return float64(n) / time.Since(start).Seconds() }

// sequential returns MB/s; most limits the bytes that are read, 0 does not.
func sequential(block int, most int64) workload {
	return func(path string) float64 {
		start := time.Now()
		f := must(os.Open(path))
		defer f.Close()
		buf := make([]byte, block)
		var total int64
		for most == 0 || total < most {
			n, err := f.Read(buf)
			total += int64(n)
			if errors.Is(err, io.EOF) {
				break
			}
			check(err)
		}
		return rate(total, start) / 1e6
	}
}

// longEnough is when a loop stops whose count is meant for the fastest subject.
const longEnough = 500 * time.Millisecond

// random returns reads a second, by so many threads together.
func random(block int64, count, threads int) workload {
	return func(path string) float64 {
		f := must(os.Open(path))
		defer f.Close()
		size := must(f.Stat()).Size()
		var done atomic.Int64
		start := time.Now()
		together(threads, func(i int) {
			// The same offsets for every subject.
			rnd, buf := rand.New(rand.NewPCG(1, uint64(i))), make([]byte, block)
			for n := range count / threads {
				if n%64 == 0 && time.Since(start) > longEnough {
					break
				}
				done.Add(1)
				must(f.ReadAt(buf, rnd.Int64N(size/block)*block))
			}
		})
		return rate(done.Load(), start)
	}
}

// mapped returns pages touched a second, each in another place of the mapped
// file.
func mapped(path string) float64 {
	f := must(os.Open(path))
	defer f.Close()
	size := must(f.Stat()).Size()
	data := must(unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED))
	defer func() { _ = unix.Munmap(data) }()
	rnd, sum, n := rand.New(rand.NewPCG(1, 2)), byte(0), int64(0)
	start := time.Now()
	for ; n < 500_000; n++ {
		if n%64 == 0 && time.Since(start) > longEnough {
			break
		}
		sum += data[rnd.Int64N(size)]
	}
	runtime.KeepAlive(sum) // the reads are not to be left out
	return rate(n, start)
}

func openClose(path string) float64 {
	const count = 2000
	buf := make([]byte, 4<<10)
	start := time.Now()
	for range count {
		f := must(os.Open(path))
		_, err := f.ReadAt(buf, 0)
		check(errors.Join(err, f.Close()))
	}
	return rate(count, start)
}

// list returns the milliseconds from opening a directory to its last name.
func list(path string) float64 {
	start := time.Now()
	if countNames(path) == 0 {
		check(fmt.Errorf("%s is empty", path))
	}
	return ms(time.Since(start))
}

// listWithStat is what "ls -l" asks for, in milliseconds.
func listWithStat(path string) float64 {
	start := time.Now()
	eachName(path, func(name []byte) {
		var st unix.Stat_t
		check(lstat(path+"/"+string(name), &st))
	})
	return ms(time.Since(start))
}

func countNames(path string) (n int) {
	eachName(path, func([]byte) { n++ })
	return n
}

// eachName reads a directory as ls does, without more objects than it needs.
func eachName(path string, do func(name []byte)) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		check(&os.PathError{Op: "open", Path: path, Err: err})
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 32<<10) // as glibc's readdir
	for {
		got := must(unix.Getdents(fd, buf))
		if got == 0 {
			return
		}
		for rest := buf[:got]; len(rest) > 0; {
			length := binary.NativeEndian.Uint16(rest[16:]) // struct linux_dirent64: d_reclen, d_name at 19
			name := rest[19:length]
			name = name[:bytes.IndexByte(name, 0)]
			rest = rest[length:]
			if s := string(name); s != "." && s != ".." {
				do(name)
			}
		}
	}
}

// statsEnd is how long asking for attributes lasts.
const statsEnd = 2 * time.Second

// stats returns the files asked after a second, by so many threads together: each
// name once, with a prefix before it, which answers with want.
func stats(threads int, prefix string, want error) workload {
	return func(path string) float64 {
		paths, start := namesIn(path, prefix), time.Now()
		return rate(statAll(paths, threads, statsEnd, want), start)
	}
}

// statFacts asks all names once, however long it takes, and returns the
// milliseconds.
func statFacts(path string) float64 {
	paths, start := namesIn(path, ""), time.Now()
	statAll(paths, 8, time.Hour, nil)
	return ms(time.Since(start))
}

// statAgain asks for names once, and returns how many it asks a second then.
func statAgain(path string) float64 {
	paths := namesIn(path, "")
	n := statAll(paths, 1, statsEnd/4, nil) // before the kernel asks again
	start := time.Now()
	return rate(statAll(paths[:n], 1, statsEnd, nil), start)
}

func namesIn(path, prefix string) (paths []string) {
	dir, file, _ := strings.Cut(path, "\n")
	for name := range strings.FieldsSeq(string(must(os.ReadFile(file)))) {
		paths = append(paths, dir+"/"+prefix+name)
	}
	return paths
}

// statAll returns how many of paths it asked for before the time was over; each
// is to answer with want.
func statAll(paths []string, threads int, most time.Duration, want error) int64 {
	var next, done atomic.Int64
	deadline := time.Now().Add(most)
	together(threads, func(int) {
		var st unix.Stat_t
		for i := int(next.Add(1)) - 1; i < len(paths); i = int(next.Add(1)) - 1 {
			if i%16 == 0 && time.Now().After(deadline) {
				return
			}
			if err := lstat(paths[i], &st); !errors.Is(err, want) {
				check(fmt.Errorf("%s: %v", paths[i], err))
			}
			done.Add(1)
		}
	})
	return done.Load()
}

// lstat asks again where one of the Go runtime's own signals came between, as
// package os does.
func lstat(path string, st *unix.Stat_t) error {
	for {
		if err := unix.Lstat(path, st); err != unix.EINTR {
			return err
		}
	}
}
