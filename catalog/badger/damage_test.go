// SPDX-License-Identifier: Apache-2.0

package badger_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const damageRecords = 5_000

// makeIndex makes an index in which all records are in their second generation,
// and leaves it closed or as after a crash. The first generation is in
// tables already: an index that loses its newest part has old values to show.
func makeIndex(t *testing.T, clean bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	c := start(t, dir)
	c.must(t, "ok", "put 0 %d 1", damageRecords)
	c.must(t, "ok", "close")
	c.end()
	c = start(t, dir)
	c.must(t, "ok", "put 0 %d 2", damageRecords)
	if clean {
		c.must(t, "ok", "close")
		c.end()
	} else {
		c.kill()
	}
	return dir
}

// cloneIndex copies an index with what is beside it. (cp keeps the holes.)
func cloneIndex(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "state")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Dir(dir), to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return filepath.Join(to, filepath.Base(dir))
}

// damages are what can happen to a file.
var damages = map[string]func(path string, size int64) error{
	"flip at 1/4":    func(path string, size int64) error { return flip(path, size/4) },
	"flip the end":   func(path string, size int64) error { return flip(path, size-10) },
	"truncate":       func(path string, size int64) error { return os.Truncate(path, size/2) },
	"truncate a bit": func(path string, size int64) error { return os.Truncate(path, size-1) },
	"truncate to 0":  func(path string, _ int64) error { return os.Truncate(path, 0) },
	"delete":         func(path string, _ int64) error { return os.Remove(path) },
}

func flip(path string, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], max(off, 0)); err != nil {
		return err
	}
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], max(off, 0))
	return err
}

// dataSize returns how far a file has data: Badger's logs end in a hole.
func dataSize(t *testing.T, path string) int64 {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(strings.TrimRight(string(text), "\x00")))
}

// Whatever happens to a file of an index: at the second start at the latest it
// opens, it never gives a wrong value, and it works.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, clean := range map[string]bool{"closed": true, "crashed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := makeIndex(t, clean)
			files := map[string]string{} // by kind
			entries, err := os.ReadDir(template)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				kind := filepath.Ext(e.Name())
				if kind == "" {
					kind = e.Name()
				}
				files[kind] = e.Name()
			}
			want := []string{".sst", "MANIFEST", ".vlog", "KEYREGISTRY"}
			if !clean {
				want = append(want, ".mem")
			}
			for _, kind := range want {
				if files[kind] == "" {
					t.Fatalf("the index has no %s: %v", kind, files)
				}
				for damage, do := range damages {
					t.Run(kind+" "+damage, func(t *testing.T) {
						t.Parallel()
						dir := cloneIndex(t, template)
						path := filepath.Join(dir, files[kind])
						if err := do(path, dataSize(t, path)); err != nil {
							t.Fatal(err)
						}
						checkDamaged(t, dir, clean)
					})
				}
			}
		})
	}
}

func checkDamaged(t *testing.T, dir string, clean bool) {
	t.Helper()
	c := start(t, dir)
	if c.opened == "" {
		c.end()
		if clean {
			t.Errorf("the process died, though the index had been closed\n%s", head(c.stderr.String()))
		}
		if c = start(t, dir); c.opened != "open damaged: true" {
			t.Fatalf("the second start: %q, want an empty index\n%s", c.opened, head(c.stderr.String()))
		}
	}
	if !strings.HasPrefix(c.opened, "open ") {
		t.Fatalf("start: %q\n%s", c.opened, head(c.stderr.String()))
	}
	got := parseCounts(t, c.do("get 0 %d 2", damageRecords))
	t.Logf("%s, %v", c.opened, got)
	// After a crash Badger's log may end early: the index is as it was a while
	// ago. A closed index is as it was, or empty.
	if got.wrong > 0 || clean && got.old+got.missing > 0 && got.missing < damageRecords {
		t.Errorf("get: %v", got)
	}
	if scanned := parseCounts(t, c.do("scan 2")); scanned.wrong > 0 || scanned.right != got.right || scanned.old != got.old {
		t.Errorf("scan: %v, but get: %v", scanned, got)
	}
	c.must(t, "ok", "put 0 100 3")
	c.must(t, "right=100 old=0 missing=0 wrong=0", "get 0 100 3")
	c.must(t, "ok", "close")
	c.end()
	c = start(t, dir)
	if c.opened != "open damaged: false" {
		t.Errorf("the next start: %q, want it sound", c.opened)
	}
	c.must(t, "right=100 old=0 missing=0 wrong=0", "get 0 100 3")
}

// A file that shrinks under a running index: reading its memory map faults.
func TestDamage_running(t *testing.T) {
	t.Parallel()
	dir := makeIndex(t, true)
	c := start(t, dir)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	for _, path := range tables {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	got := parseCounts(t, c.do("get 0 %d 2", damageRecords))
	if got.wrong > 0 || got.missing == 0 {
		t.Errorf("get: %v", got)
	}
	c.must(t, "EIO", "put 0 1 3")
	c.must(t, "EIO", "scan 2")
	c.must(t, "EIO", "close")
	c.end()
	c = start(t, dir)
	if c.opened != "open damaged: true" {
		t.Errorf("the next start: %q, want an empty index", c.opened)
	}
	c.must(t, "ok", "put 0 1 3")
}

// What was damaged is kept for those who want to know, but once.
func TestDamage_aside(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "index")
	for range 3 {
		db := open(t, dir)
		if err := db.Apply(record(1, 1)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "MANIFEST")); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, dir)
	bad, err := filepath.Glob(dir + ".bad-*")
	if err != nil || len(bad) != 1 {
		t.Fatalf("set aside: %v, %v, want one", bad, err)
	}
	if err := db.Damage(); err == nil || !strings.Contains(err.Error(), bad[0]) {
		t.Errorf("Damage: %v, want one that names %s", err, bad[0])
	}
	if tables, err := fs.Glob(os.DirFS(bad[0]), "*.sst"); err != nil || len(tables) == 0 {
		t.Errorf("nothing is in it: %v, %v", tables, err)
	}
}

// Every acknowledged record is there after kill -9.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "index")
	next := 0
	for round, acks := range []int{1, 700, 2500, 90, 4000, 1200} {
		c := start(t, dir)
		if c.opened != "open damaged: false" {
			t.Fatalf("round %d: %q\n%s", round, c.opened, head(c.stderr.String()))
		}
		fmt.Fprintf(c.in, "stream %d\n", next)
		for range acks {
			if got, want := c.line(), fmt.Sprint(next); got != want {
				t.Fatalf("round %d: acknowledged %q, want %s", round, got, want)
			}
			next++
		}
		c.kill()
		c = start(t, dir)
		c.must(t, fmt.Sprintf("right=%d old=0 missing=0 wrong=0", next), "get 0 %d 1", next)
		c.kill()
	}
}
