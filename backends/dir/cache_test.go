// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
)

// stored returns the size of an image, -1 if there is none.
func stored(t *testing.T, c *client, ref backends.Ref) int64 {
	t.Helper()
	img, err := c.Stat(t.Context(), ref)
	if errors.Is(err, fs.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return img.Size
}

// What others do is seen by the next look, however soon it comes.
func TestMemory_changes(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	at := func(path string) string { return filepath.Join(root, path) }
	steps := []struct {
		name string
		do   func() error
		want int64
	}{
		{"image added", func() error { return os.WriteFile(at("c/i/t.sif"), []byte("1"), 0o644) }, 1},
		{"rewritten", func() error { return os.WriteFile(at("c/i/t.sif"), []byte("22"), 0o644) }, 2},
		{"newer version added", func() error { return os.WriteFile(at("c/i/t@x.sif"), []byte("333"), 0o644) }, 3},
		{"replaced by a rename", func() error {
			return errors.Join(os.WriteFile(at("new"), []byte("4444"), 0o644), os.Rename(at("new"), at("c/i/t@x.sif")))
		}, 4},
		{"newer version removed", func() error { return os.Remove(at("c/i/t@x.sif")) }, 2},
		{"renamed", func() error { return os.Rename(at("c/i/t.sif"), at("c/i/u.sif")) }, -1},
		{"renamed back", func() error { return os.Rename(at("c/i/u.sif"), at("c/i/t.sif")) }, 2},
		{"directory renamed", func() error { return os.Rename(at("c/i"), at("c/j")) }, -1},
		{"another in its place", func() error { return os.Rename(at("other"), at("c/i")) }, 5},
		{"removed", func() error { return os.RemoveAll(at("c/i")) }, -1},
		{"flat file added", func() error { return os.WriteFile(at("c/i:t.simg"), []byte("666666"), 0o644) }, 6},
		{"directory before flat file", func() error { return os.Rename(at("c/j"), at("c/i")) }, 2},
		{"collection moved, a link in its place", func() error {
			return errors.Join(os.Rename(at("c"), at("d")), os.Symlink("d", at("c")))
		}, -1},
		{"the collection again", func() error { return errors.Join(os.Remove(at("c")), os.Rename(at("d"), at("c"))) }, 2},
		{"a link for the image's directory", func() error {
			return errors.Join(os.Remove(at("c/i:t.simg")), os.Rename(at("c/i"), at("k")), os.Symlink("../k", at("c/i")))
		}, -1},
		{"store removed", func() error { return os.RemoveAll(root) }, -1},
		{"store made again", func() error {
			return errors.Join(os.MkdirAll(at("c/i"), 0o755), os.WriteFile(at("c/i/t.sif"), []byte("7777777"), 0o644))
		}, 7},
	}
	write(t, root, "other/t.sif", []byte("55555"), time.Time{})
	if err := os.MkdirAll(at("c/i"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, c, ref); got != -1 {
		t.Fatalf("an empty store has an image of %d bytes", got)
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(step.name, err)
		}
		if got := stored(t, c, ref); got != step.want {
			t.Errorf("%s: size %d, want %d", step.name, got, step.want)
		}
		inList := int64(-1)
		for e, err := range c.List(t.Context(), "c") {
			if err == nil && e.Image.Ref == ref {
				inList = e.Image.Size
			}
		}
		if inList != step.want {
			t.Errorf("%s: listed with size %d, want %d", step.name, inList, step.want)
		}
	}
}

// Images that come and go at once, as fast as can be, while others look: who
// looks after a change sees it.
func TestMemory_race(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	if err := os.MkdirAll(filepath.Join(root, "c/i"), 0o755); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	var end atomic.Bool
	for range 3 {
		g.Go(func() error {
			for !end.Load() {
				if _, err := c.Stat(t.Context(), ref); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if _, err := backends.Collect(c.List(t.Context(), "c")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	path := filepath.Join(root, "c/i/t.sif")
	for n := range 300 {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, c, ref); got != 1 {
			t.Fatalf("round %d: size %d just after it was written", n, got)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, c, ref); got != -1 {
			t.Fatalf("round %d: size %d just after it was renamed", n, got)
		}
	}
	end.Store(true)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// What is pushed and deleted here is seen at once, also on a file system that
// shows changes late: nothing remembered is left of where it was.
func TestMemory_own(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	look := func(want int64) {
		t.Helper()
		for _, dir := range []string{"c/i", "c", "."} {
			if c.folders.slots[dir] != nil {
				t.Fatalf("still remembered: %s", dir)
			}
		}
		if got := c.known.last("c/i"); got != nil {
			t.Fatalf("facts still remembered: %v", got)
		}
		if got := stored(t, c, ref); got != want {
			t.Fatalf("size %d, want %d", got, want)
		}
		for _, collection := range []string{"", "c"} {
			list(t, c, collection)
		}
	}
	write(t, root, "c/i/u.sif", []byte("another"), time.Time{})
	var img backends.Image
	for n := range 5 {
		src := source(strings.Repeat("x", n))
		src.Replaces = backends.ReplaceAny
		img = push(t, c, ref, src)
		look(int64(n))
	}
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	look(-1)
}

// A directory that is left alone is read once.
func TestMemory_once(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	write(t, root, "c/i/t.sif", []byte("x"), time.Time{})
	dir := filepath.Join(root, "c/i")
	if kept(t, dir) == briefly {
		t.Skip("a file system with a clock of its own")
	}
	for kept(t, dir) != always {
		stored(t, c, ref) // until the clock has moved on
	}
	stored(t, c, ref)
	first := c.folders.last("c/i")
	if stored(t, c, ref); c.folders.last("c/i") != first {
		t.Error("a directory without changes was read again")
	}
}

func kept(t *testing.T, dir string) time.Duration {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return lasting(f, fileStateOf(info))
}

func TestLook_takes(t *testing.T) {
	t.Parallel()
	now, old, changed := time.Now(), fileState{modTime: 1}, fileState{modTime: 2}
	for _, tt := range []struct {
		name  string
		look  query
		lasts time.Duration
		age   time.Duration
		want  bool
	}{
		{"unchanged for long", query{now: old}, always, time.Hour, true},
		{"changed", query{now: changed}, always, 0, false},
		{"within a tick", query{now: old}, never, time.Hour, false},
		{"elsewhere, just read", query{now: old}, briefly, briefly - 1, true},
		{"elsewhere, read before", query{now: old}, briefly, briefly, false},
		{"elsewhere, changed", query{now: changed}, briefly, 0, false},
		{"elsewhere, for a push", query{now: old, exact: true}, briefly, 0, false},
		{"for a push", query{now: old, exact: true}, always, time.Hour, true},
	} {
		tt.look.began = now
		if got := tt.look.accepts(tt.lasts, old, now.Add(-tt.age)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// Of many who ask at once one reads; who asks later than that began has it read
// again, unless it is known to be unchanged.
func TestMemory_together(t *testing.T) {
	t.Parallel()
	var m readCache[int]
	reads, inside := 0, make(chan struct{})
	release := make(chan struct{})
	read := func() (cached[int], error) {
		reads++ // under the slot's lock
		r := cached[int]{value: reads, began: time.Now()}
		inside <- struct{}{}
		<-release
		return r, nil
	}
	var wg sync.WaitGroup
	ask := func(atLeast int) {
		l := query{path: "p", began: time.Now()}
		wg.Go(func() {
			if got, err := m.get(l, read); err != nil || got < atLeast {
				t.Errorf("got reading %d, %v, want %d or later", got, err, atLeast)
			}
		})
	}
	ask(1)
	<-inside
	for range 8 {
		ask(2) // the first began before
	}
	release <- struct{}{}
	<-inside
	release <- struct{}{}
	wg.Wait()
	if reads != 2 {
		t.Errorf("%d readings", reads)
	}
}

// What a memory holds has a limit, and what was dropped while it was read is
// not kept.
func TestMemory_limit(t *testing.T) {
	t.Parallel()
	var m readCache[int]
	get := func(path string, size int) {
		_, err := m.get(query{path: path, began: time.Now()}, func() (cached[int], error) {
			return cached[int]{size: size, began: time.Now(), lasts: always}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1000 {
		get(fmt.Sprint(n), maxCached/100)
		if total := count(&m); total != m.size || total > maxCached {
			t.Fatalf("after %d: %d bytes, counted as %d", n, total, m.size)
		}
	}
	get("huge", 3*maxCached)
	if len(m.slots) != 1 || m.slots["huge"] == nil {
		t.Errorf("%d readings with one that is too large", len(m.slots))
	}
	get("small", 1)
	if len(m.slots) != 1 || m.slots["small"] == nil || m.size != count(&m) {
		t.Errorf("%d readings, %d bytes after it", len(m.slots), m.size)
	}
	_, err := m.get(query{path: "dropped"}, func() (cached[int], error) {
		m.drop("dropped")
		return cached[int]{lasts: always}, nil
	})
	if err != nil || m.slots["dropped"] != nil {
		t.Errorf("kept though dropped: %v, %v", m.slots["dropped"], err)
	}
	broken := errors.New("broken")
	if _, err := m.get(query{path: "bad"}, func() (cached[int], error) { return cached[int]{}, broken }); !errors.Is(err, broken) || m.slots["bad"] != nil {
		t.Errorf("a failed reading: %v, %v", m.slots["bad"], err)
	}
}

func count(m *readCache[int]) int {
	total := 0
	for path, s := range m.slots {
		total += s.last.Load().size + len(path) + slotSize
	}
	return total
}
