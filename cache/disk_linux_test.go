// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk/disktest"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A chunk whose bytes are not on the disk is fetched again, whatever the map says.
func TestDisk_holes(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 6*mib+99)
	damage := map[string]struct {
		fn   func(f *os.File) error
		lost []int64
	}{
		"hole":      {func(f *os.File) error { return punch(f, 2*mib+4096, 4096) }, []int64{2}},
		"cut off":   {func(f *os.File) error { return f.Truncate(4*mib + 5) }, []int64{4, 5, 6}},
		"emptied":   {func(f *os.File) error { return f.Truncate(0) }, []int64{0, 1, 2, 3, 4, 5, 6}},
		"unchanged": {func(*os.File) error { return nil }, nil},
	}
	for name, test := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client, dir := r.client(t), t.TempDir()
			img := r.image("a", content)
			img.Digest = sha256Of([]byte("never whole")) // so that it stays partial
			c := openCache(t, dir, Options{NoBackground: true})
			b := openBlob(t, c, client, img)
			for n := range int64(7) {
				if n != 3 {
					mustRead(t, b, content, n*mib, min(mib, img.Size-n*mib))
				}
			}
			path := b.data.Load().item.slot().part()
			c.Close()
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			mustDo(t, err, test.fn(f), f.Close())
			c = openCache(t, dir, Options{NoBackground: true})
			b = openBlob(t, c, client, img)
			lost := map[int64]bool{3: true}
			for _, n := range test.lost {
				lost[n] = true
			}
			for n := range int64(7) {
				if b.Has(n*mib, 1) == lost[n] {
					t.Errorf("MiB %d is here: %v", n, !lost[n])
				}
			}
			mustRead(t, b, content, 0, 3*mib)
		})
	}
}

func punch(f *os.File, off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Bits that were not synced are not in the map, and what could not be synced is
// fetched again.
func TestDisk_failedSync(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 3*mib)
	img := r.image("a", content)
	c := openCache(t, t.TempDir(), Options{NoBackground: true, dirtyAge: time.Hour})
	b := openBlob(t, c, r.client(t), img)
	mustRead(t, b, content, 0, mib)
	d := b.data.Load()
	mapOf := d.item.slot().mapOf()
	if _, err := readMap(mapOf); err == nil {
		t.Error("there is a map before anything was synced")
	}
	eventually(t, "whole chunk", func() bool { return d.has(0, mib) })
	// overdue makes the committer sync what is here.
	overdue := func() {
		d.stored.mu.Lock()
		d.stored.dirtySince = time.Now().Add(-2 * time.Hour)
		d.stored.mu.Unlock()
		d.notifyCommitter()
	}
	overdue()
	eventually(t, "map", func() bool { _, err := readMap(mapOf); return err == nil })
	if m, err := readMap(mapOf); err != nil || !m.Have.Has(0) || m.Have.Len() != chunks.Count(mib) {
		t.Errorf("after a sync the map is %+v (%v)", m, err)
	}
	mustRead(t, b, content, mib, mib)
	eventually(t, "second chunk", func() bool { return d.has(mib, 2*mib) })
	eventually(t, "end of the fetches", d.unusedButForUs)
	real := d.stored.written
	pipe, _, err := os.Pipe() // cannot be synced
	mustDo(t, err)
	defer pipe.Close()
	d.stored.disk.Lock()
	d.stored.written = pipe
	d.stored.disk.Unlock()
	overdue()
	eventually(t, "loss", func() bool { return !d.has(mib, 2*mib) })
	d.stored.disk.Lock()
	d.stored.written = real
	d.stored.disk.Unlock()
	if m, err := readMap(mapOf); err != nil || m.Have.Has(chunks.Of(mib)) {
		t.Errorf("after a failed sync the map is %+v (%v)", m, err)
	}
	if !d.has(0, mib) {
		t.Error("a chunk that was synced before is lost")
	}
	d.download.Pause(time.Time{}) // it is over
	mustRead(t, b, content, mib, mib)
	mustWait(t, b)
}

func (d *data) unusedButForUs() bool {
	return d.download.Running() == 0
}

// A full disk evicts; when that does not help, readers get their bytes all the same.
func TestDisk_full(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	dir := filepath.Join(disktest.Small(t, "8m"), "cache")
	old, content := randomBytes(1, 3*mib), randomBytes(2, 20*mib)
	c := openCache(t, dir, Options{FillDelay: time.Millisecond, Patience: 5 * time.Second})
	b, err := c.Blob(t.Context(), client, r.image("old", old))
	mustDo(t, err)
	mustWait(t, b)
	b.Close()
	small := openBlob(t, c, client, r.image("small", old[:mib]))
	mustWait(t, small)
	big := openBlob(t, c, client, r.image("big", content))
	compareAll(t, big, content)
	if got := c.Info(KeyOf("lab", r.image("old", old))).State; got != Remote {
		t.Errorf("the old blob is %s, want it evicted", got)
	}
	mustRead(t, small, old, 0, mib)
	if sent := r.sent.Load(); sent > 45*mib {
		t.Errorf("%d bytes fetched to read 20 MiB once", sent)
	}
	if err := big.Wait(t.Context(), nil); !isFull(err) {
		t.Errorf("Wait = %v, want ENOSPC", err)
	}
	small.Close()
	big.Close()
}

// The limit holds, but for what is open or pinned.
func TestDisk_limit(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	c := openCache(t, t.TempDir(), Options{MaxBytes: 5 * mib})
	var imgs []backends.Image
	for i := range 8 {
		imgs = append(imgs, r.image(string(rune('a'+i)), randomBytes(uint64(i), mib)))
	}
	c.Pin(KeyOf("lab", imgs[0]))
	held := openBlob(t, c, client, imgs[1])
	mustWait(t, held)
	for _, img := range imgs {
		b := openBlob(t, c, client, img)
		mustWait(t, b)
		b.Close()
	}
	c.Trim()
	used, limit := c.Usage()
	if limit != 5*mib || used > limit || used < 4*mib {
		t.Errorf("%d bytes in use of %d", used, limit)
	}
	want := []State{Cached, Cached, Remote, Remote, Remote, Cached, Cached, Cached}
	for i, img := range imgs {
		if got := c.Info(KeyOf("lab", img)).State; got != want[i] {
			t.Errorf("blob %d is %s, want %s", i, got, want[i])
		}
	}
}
