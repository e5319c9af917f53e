// SPDX-License-Identifier: Apache-2.0

//go:build linux

package badger_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/disk/disktest"
)

// When others fill the disk the process lives, reads work and changes are refused;
// so also for one that is killed and started again there. With space they work again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, "64m")
	dir := filepath.Join(disk, "state", "index")
	filler := filepath.Join(disk, "filler")
	ballast := dir + ".ballast"
	c := start(t, dir)
	c.must(t, "ok", "put 0 10000 1")
	await(t, "the ballast", func() bool { return exists(ballast) })
	fill(t, filler)
	await(t, "the ballast to go", func() bool { return !exists(ballast) })
	fill(t, filler)

	sound := "right=10000 old=0 missing=0 wrong=0"
	c.must(t, "ENOSPC", "put 0 1 1")
	c.must(t, sound, "get 0 10000 1")
	c.must(t, sound, "scan 1")
	c.must(t, "ok", "close")
	c.end()

	for range 2 {
		fill(t, filler) // what the one before gave back when it closed
		c = start(t, dir)
		if c.opened != "open damaged: false" {
			t.Fatalf("start on a full disk: %q\n%s", c.opened, head(c.stderr.String()))
		}
		c.must(t, "ENOSPC", "put 0 1 1")
		c.must(t, "right=0 old=0 missing=1 wrong=0", "get 0 1 1")
		c.kill()
	}
	c = start(t, dir)
	c.must(t, "ENOSPC", "put 0 1 1")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	await(t, "the index to open", func() bool { return c.do("get 0 10000 1") == sound })
	await(t, "changes", func() bool { return c.do("put 0 10000 2") == "ok" })
	c.must(t, sound, "get 0 10000 2")
	c.must(t, "ok", "close")
}

// An index that fills the disk itself stops early enough to be closed and opened.
func TestFullDisk_itself(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(disktest.Small(t, "64m"), "state", "index")
	c := start(t, dir)
	n := 0
	for ; n < 1_000_000; n += 1000 {
		answer := c.do("put %d %d 1", n, n+1000)
		if answer == "ENOSPC" {
			break
		}
		if answer != "ok" {
			t.Fatalf("put: %q\n%s", answer, head(c.stderr.String()))
		}
	}
	if n < 5000 || n == 1_000_000 {
		t.Errorf("%d records went on the disk", n)
	}
	sound := fmt.Sprintf("right=%d old=0 missing=0 wrong=0", n)
	c.must(t, sound, "scan 1")
	c.must(t, "ok", "close")
	c.end()
	c = start(t, dir)
	c.must(t, sound, "scan 1")
	c.must(t, "ok", "close")
}

// A ballast, and nothing else, is room enough to start again after a kill.
func TestFullDisk_ballast(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, "128m")
	dir := filepath.Join(disk, "state", "index")
	filler := filepath.Join(disk, "filler")
	c := start(t, dir)
	c.must(t, "ok", "put 0 10000 1")
	await(t, "the ballast", func() bool { return exists(dir + ".ballast") })
	c.kill()
	fill(t, filler)

	c = start(t, dir)
	sound := "right=10000 old=0 missing=0 wrong=0"
	c.must(t, sound, "get 0 10000 1")
	if exists(dir + ".ballast") {
		t.Error("the ballast is still there")
	}
	c.must(t, "ENOSPC", "put 0 1 2")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	await(t, "changes", func() bool { return c.do("put 0 10000 2") == "ok" })
	c.must(t, sound, "get 0 10000 2")
	c.must(t, "ok", "close")
}

// fill makes the file take what is left of its disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for buf := make([]byte, 1<<20); ; {
		n, err := f.Write(buf)
		if errors.Is(err, syscall.ENOSPC) && n == 0 && len(buf) == 1 {
			return
		}
		if errors.Is(err, syscall.ENOSPC) {
			buf = buf[:max(len(buf)/2, 1)]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// await waits for what the index does in its own time: it looks at the disk
// once a second.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-timeout:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
