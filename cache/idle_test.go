// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// countIdle returns how many files are kept open that nobody has open.
func countIdle(c *Cache) int {
	c.table.idle.mu.Lock()
	defer c.table.idle.mu.Unlock()
	return len(c.table.idle.all)
}

// putWhole puts content into the cache as a blob that was opened and closed since.
func putWhole(t *testing.T, c *Cache, r *registry, content []byte) (key Key, open func(t *testing.T) *Blob) {
	t.Helper()
	client, img := r.client(t), r.image("a", content)
	open = func(t *testing.T) *Blob { return openBlob(t, c, client, img) }
	b := open(t)
	mustWait(t, b)
	key = b.Key()
	b.Close()
	eventually(t, "the committer ends", func() bool { return c.Info(key).Open == 0 && !c.isOpen(key) })
	open(t).Close()
	return key, open
}

func (c *Cache) isOpen(key Key) bool {
	f, err := c.table.lookup(key)
	if err != nil {
		return false
	}
	it := f.main
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data != nil
}

// What is opened again at once is the same file, as long as its name leads there.
func TestIdle_reopened(t *testing.T) {
	t.Parallel()
	r, content := newRegistry(t), randomBytes(1, 2*mib)
	c := openCache(t, t.TempDir(), Options{})
	key, open := putWhole(t, c, r, content)
	if n := countIdle(c); n != 1 {
		t.Fatalf("%d idle blobs after closing, want 1", n)
	}
	before := c.table.idle.all[0].data
	b := open(t)
	if b.data.Load() != before || countIdle(c) != 0 {
		t.Error("the file was opened again")
	}
	mustRead(t, b, content, 0, 2*mib)
	if info := c.Info(key); info.Open != 1 || info.State != Cached || !b.Epoch().Agrees(info.Epoch) {
		t.Errorf("Info = %+v, the blob's epoch %v", info, b.Epoch())
	}
	second := open(t)
	b.Close()
	mustRead(t, second, content, mib, mib)
	if n := countIdle(c); n != 0 {
		t.Error("what is still open is idle")
	}
}

func TestIdle_changedOnDisk(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 2*mib)
	damage := map[string]func(t *testing.T, path string){
		"a byte": func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { b[5] ^= 1; return b })
		},
		"another file": func(t *testing.T, path string) {
			mustDo(t, os.WriteFile(path+"x", randomBytes(2, 2*mib), 0o600), os.Rename(path+"x", path))
		},
		"two names": func(t *testing.T, path string) { mustDo(t, os.Link(path, path+"x")) },
		"deleted":   func(t *testing.T, path string) { mustDo(t, os.Remove(path)) },
		"moved":     func(t *testing.T, path string) { mustDo(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+"x")) },
	}
	for name, fn := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			c := openCache(t, t.TempDir(), Options{})
			key, open := putWhole(t, c, r, content)
			fn(t, c.dir.file(key))
			b := open(t)
			mustRead(t, b, content, 0, 2*mib)
			mustWait(t, b)
			if got := r.sent.Load(); got != 4*mib {
				t.Errorf("%d bytes fetched, want twice the image", got)
			}
		})
	}
}

// A blob that goes takes the file that is kept open along: its room is free.
func TestIdle_removed(t *testing.T) {
	t.Parallel()
	remove := map[string]func(t *testing.T, c *Cache, key Key){
		"Remove": func(t *testing.T, c *Cache, key Key) { mustDo(t, c.Remove(key)) },
		"trim":   func(_ *testing.T, c *Cache, _ Key) { c.evictor.trim(1 << 62) },
		"Verify": func(t *testing.T, c *Cache, key Key) {
			rewrite(t, c.dir.file(key), func(b []byte) []byte { b[5] ^= 1; return b })
			if err := c.Verify(t.Context(), key, nil); err == nil {
				t.Error("Verify found nothing")
			}
		},
		"Close": func(t *testing.T, c *Cache, _ Key) { mustDo(t, c.Close()) },
	}
	for name, fn := range remove {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t, t.TempDir(), Options{})
			key, _ := putWhole(t, c, newRegistry(t), randomBytes(1, mib))
			f := c.table.idle.all[0].data.stored.file.Load()
			fn(t, c, key)
			if n := countIdle(c); n != 0 {
				t.Errorf("%d idle blobs are left", n)
			}
			if _, err := f.Stat(); err == nil {
				t.Error("the file is still open")
			}
		})
	}
}

// Idle blobs are few, and do not last.
func TestIdle_bounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := openCache(t, dir, Options{})
		var s []*data
		for i := range maxIdle + 3 {
			f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
			mustDo(t, err)
			d := newData(&item{common: &c.common}, 1, "")
			d.stored.file.Store(f)
			d.users = 1
			if out := c.table.idle.put(d); out != nil {
				out.leave()
			}
			s = append(s, d)
		}
		if n := countIdle(c); n != maxIdle {
			t.Errorf("%d idle blobs, want %d", n, maxIdle)
		}
		time.Sleep(idleAge - 1)
		synctest.Wait()
		if n := countIdle(c); n != maxIdle {
			t.Errorf("%d idle blobs a moment before their time, want %d", n, maxIdle)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		for i, d := range s {
			if _, err := d.stored.file.Load().Stat(); err == nil {
				t.Errorf("file %d is still open", i)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
