// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A workload does something with the file or directory at path and returns a
// figure. It runs in a process of its own, which may be another user's in
// another mount namespace; starting that process is not measured.
type workload func(path string) (float64, error)

// workloads are those that a child process can be asked for.
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
	"stat":             stats(1),
	"stat x8":          stats(8),
	"stat again":       statAgain,
	"stat all":         statFacts,
	"stat of no name":  statMissing,
	"drop, list":       dropped(list),
	"drop, sequential": dropped(sequential(1<<20, 0)),
	"drop, 4K":         dropped(random(4<<10, 10_000, 1)),
	"drop, 128K":       dropped(random(128<<10, 1_500, 1)),
}

// measureHere runs a workload in this process and prints its figure.
func measureHere(name, path string) error {
	w := workloads[name]
	if w == nil {
		return fmt.Errorf("no workload %q", name)
	}
	v, err := w(path)
	if err == nil {
		fmt.Println(v)
	}
	return err
}

// measure runs a workload in a child process, with the words of as before it.
func (b *bench) measure(ctx context.Context, as []string, name, path string) (float64, error) {
	args := append(append([]string{}, as...), b.exe("bench"), "-measure", name, path)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return 0, fmt.Errorf("%s of %s: %v: %s", name, path, err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// dropped first takes away what the kernel keeps of path itself, pages or
// directory entries. What lies behind a mount is another file: its pages stay.
func dropped(w workload) workload {
	return func(path string) (float64, error) {
		if err := dropPages(path); err != nil {
			return 0, err
		}
		return w(path)
	}
}

func dropPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// sequential returns MB/s; most limits the bytes that are read, 0 does not.
func sequential(block int, most int64) workload {
	return func(path string) (float64, error) {
		start := time.Now()
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		buf := make([]byte, block)
		var total int64
		for most == 0 || total < most {
			n, err := f.Read(buf)
			total += int64(n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return 0, err
			}
		}
		return float64(total) / 1e6 / time.Since(start).Seconds(), nil
	}
}

// longEnough is when a loop stops whose count is meant for the fastest subject.
const longEnough = 500 * time.Millisecond

// random returns reads a second, by so many threads together.
func random(block int64, count, threads int) workload {
	return func(path string) (float64, error) {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		var all errgroup.Group
		var done atomic.Int64
		start := time.Now()
		for i := range threads {
			all.Go(func() error {
				// The same offsets for every subject.
				rnd := rand.New(rand.NewPCG(1, uint64(i)))
				buf := make([]byte, block)
				for n := range count / threads {
					if n%64 == 0 && time.Since(start) > longEnough {
						break
					}
					done.Add(1)
					if _, err := f.ReadAt(buf, rnd.Int64N(info.Size()/block)*block); err != nil {
						return err
					}
				}
				return nil
			})
		}
		err = all.Wait()
		return float64(done.Load()) / time.Since(start).Seconds(), err
	}
}

// mapped returns pages touched a second, each in another place of the mapped
// file.
func mapped(path string) (float64, error) {
	const count = 500_000
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Munmap(data) }()
	rnd := rand.New(rand.NewPCG(1, 2))
	var sum byte
	start := time.Now()
	n := 0
	for ; n < count; n++ {
		if n%64 == 0 && time.Since(start) > longEnough {
			break
		}
		sum += data[rnd.Int64N(info.Size())]
	}
	runtime.KeepAlive(sum) // the reads are not to be left out
	return float64(n) / time.Since(start).Seconds(), nil
}

func openClose(path string) (float64, error) {
	const count = 2000
	buf := make([]byte, 4<<10)
	start := time.Now()
	for range count {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		_, err = f.ReadAt(buf, 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
	}
	return count / time.Since(start).Seconds(), nil
}

// list returns the milliseconds from opening a directory to its last name.
func list(path string) (float64, error) {
	start := time.Now()
	n, err := eachName(path, func([]byte) error { return nil })
	if n == 0 && err == nil {
		err = fmt.Errorf("%s is empty", path)
	}
	return since(start), err
}

// listWithStat is what "ls -l" asks for, in milliseconds.
func listWithStat(path string) (float64, error) {
	start := time.Now()
	_, err := eachName(path, func(name []byte) error {
		var st unix.Stat_t
		return lstat(path+"/"+string(name), &st)
	})
	return since(start), err
}

func since(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }

// eachName reads a directory as ls does, without more objects than it needs.
func eachName(path string, do func(name []byte) error) (n int, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	buf := make([]byte, 32<<10) // as glibc's readdir
	for {
		got, err := unix.Getdents(fd, buf)
		if got == 0 || err != nil {
			return n, err
		}
		for rest := buf[:got]; len(rest) > 0; {
			length := int(rest[16]) | int(rest[17])<<8 // struct linux_dirent64: d_reclen, d_name at 19
			name := rest[19:length]
			name = name[:clen(name)]
			rest = rest[length:]
			if s := string(name); s == "." || s == ".." {
				continue
			}
			n++
			if err := do(name); err != nil {
				return n, err
			}
		}
	}
}

func clen(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return len(b)
}

// writeImage writes size bytes that do not compress, nor are all zero.
func writeImage(path string, size int64) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var seed [32]byte
	_, err = io.CopyN(f, rand.NewChaCha8(seed), size)
	return errors.Join(err, f.Sync())
}

// stats returns the files asked after a second, by so many threads together: the
// names that a file lists, each once, for as long as statsEnd. path is the
// directory and, after a line feed, that file.
func stats(threads int) workload {
	return func(path string) (float64, error) {
		paths, err := namesIn(path, "")
		if err != nil {
			return 0, err
		}
		start := time.Now()
		n, err := statAll(paths, threads, statsEnd, nil)
		return float64(n) / time.Since(start).Seconds(), err
	}
}

const statsEnd = 2 * time.Second

// statFacts asks all names once, however long it takes, and returns the
// milliseconds.
func statFacts(path string) (float64, error) {
	paths, err := namesIn(path, "")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, err = statAll(paths, 8, time.Hour, nil)
	return since(start), err
}

// statAgain asks for names once, and returns how many it asks a second then.
func statAgain(path string) (float64, error) {
	paths, err := namesIn(path, "")
	if err != nil {
		return 0, err
	}
	n, err := statAll(paths, 1, statsEnd/4, nil) // before the kernel asks again
	if err != nil {
		return 0, err
	}
	start := time.Now()
	again, err := statAll(paths[:n], 1, statsEnd, nil)
	return float64(again) / time.Since(start).Seconds(), err
}

// statMissing asks for names that are not there.
func statMissing(path string) (float64, error) {
	paths, err := namesIn(path, "no-")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := statAll(paths, 1, statsEnd, unix.ENOENT)
	return float64(n) / time.Since(start).Seconds(), err
}

func namesIn(path, prefix string) (paths []string, err error) {
	dir, file, _ := strings.Cut(path, "\n")
	text, err := os.ReadFile(file)
	for name := range strings.FieldsSeq(string(text)) {
		paths = append(paths, dir+"/"+prefix+name)
	}
	return paths, err
}

// statAll returns how many of paths it asked for before the time was over; each
// is to answer with want.
func statAll(paths []string, threads int, most time.Duration, want error) (int, error) {
	var next, done atomic.Int64
	var all errgroup.Group
	deadline := time.Now().Add(most)
	for range threads {
		all.Go(func() error {
			var st unix.Stat_t
			for i := int(next.Add(1)) - 1; i < len(paths); i = int(next.Add(1)) - 1 {
				if i%16 == 0 && time.Now().After(deadline) {
					return nil
				}
				if err := lstat(paths[i], &st); !errors.Is(err, want) {
					return fmt.Errorf("%s: %v", paths[i], err)
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := all.Wait()
	return int(done.Load()), err
}

// lstat asks again where one of the Go runtime's own signals came between, as
// package os does.
func lstat(path string, st *unix.Stat_t) error {
	for {
		if err := unix.Lstat(path, st); err != unix.EINTR { //nolint:errorlint // a plain errno
			return err
		}
	}
}
