// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// A workload reads the file at path and returns a figure, higher being better.
type workload struct {
	name, unit string
	measure    func(path string) (float64, error)
}

var workloads = []workload{
	{"sequential 1 MiB", "MB/s", sequential},
	{"random 4 KiB", "reads/s", random(4<<10, 20_000)},
	{"random 128 KiB", "reads/s", random(128<<10, 4_000)},
	{"open, 4 KiB, close", "times/s", openClose},
}

// measureHere runs a workload in this process and prints its figure, as a child
// of the bench that may be another user in another mount namespace.
func measureHere(name, path string) error {
	for _, w := range workloads {
		if w.name == name {
			v, err := w.measure(path)
			if err != nil {
				return err
			}
			fmt.Println(v)
			return nil
		}
	}
	return fmt.Errorf("no workload %q", name)
}

func sequential(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	var total int64
	start := time.Now()
	for {
		n, err := f.Read(buf)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return float64(total) / 1e6 / time.Since(start).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func random(block int64, count int) func(string) (float64, error) {
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
		// The same offsets for every subject.
		rnd := rand.New(rand.NewPCG(1, 2))
		buf := make([]byte, block)
		start := time.Now()
		for range count {
			off := rnd.Int64N(info.Size()/block) * block
			if _, err := f.ReadAt(buf, off); err != nil {
				return 0, err
			}
		}
		return float64(count) / time.Since(start).Seconds(), nil
	}
}

func openClose(path string) (float64, error) {
	const count = 500
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
	return err
}
