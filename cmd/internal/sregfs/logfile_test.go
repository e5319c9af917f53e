// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Several processes write one log. It stays small, one older file is kept, and every
// line is whole and in one of the two, the last ones at least.
func TestLogRotates(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dir", "sregfs.log")
	const writers, lines, limit = 3, 3000, 64 << 10
	var logs []*logFile
	for range writers {
		l, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.max = limit
		logs = append(logs, l)
	}
	// Side by side, but a line of each at a time: a fast one would have more than one
	// file pass by, and write much while another one renames.
	for n := range lines {
		var all sync.WaitGroup
		for w, l := range logs {
			all.Go(func() { fmt.Fprintf(l, "writer %d line %05d of many\n", w, n) })
		}
		all.Wait()
	}
	var text strings.Builder
	for _, name := range []string{path + ".1", path} {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) > limit+writers*1000 {
			t.Errorf("%s has %d bytes", name, len(part))
		}
		text.Write(part)
	}
	for line := range strings.Lines(text.String()) {
		var w, n int
		if got, err := fmt.Sscanf(line, "writer %d line %05d of many\n", &w, &n); got != 2 || err != nil {
			t.Errorf("torn line %q", line)
		}
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
	for w := range writers {
		if !strings.Contains(text.String(), fmt.Sprintf("writer %d line %05d", w, lines-1)) {
			t.Errorf("the last line of writer %d is lost", w)
		}
	}
}

// What logrotate does, in both of its ways.
func TestLogReopens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sregfs.log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write := func(text string) {
		t.Helper()
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name, text string) {
		t.Helper()
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v, want %q", filepath.Base(name), got, err, text)
		}
	}
	write("one\n")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write("two\n") // before it is told
	for range 2 {
		if err := l.reopen(); err != nil {
			t.Fatal(err)
		}
	}
	write("three\n")
	want(path+".old", "one\ntwo\n")
	want(path, "three\n")
	if err := os.Truncate(path, 0); err != nil { // copytruncate
		t.Fatal(err)
	}
	write("four\n")
	want(path, "four\n")
	if err := (*logFile)(nil).reopen(); err != nil {
		t.Error(err)
	}
}
