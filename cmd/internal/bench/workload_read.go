// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

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
