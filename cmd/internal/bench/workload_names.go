// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

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
		if err := unix.Lstat(path, st); err != unix.EINTR {
			return err
		}
	}
}
