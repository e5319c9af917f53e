// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// sharedCache fills the cache of a site with an image, and opens it to others.
func sharedCache(t *testing.T, client *backends.Client, img backends.Image) layout {
	t.Helper()
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	mustWait(t, openBlob(t, c, client, img))
	mustDo(t, c.Close(), filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return errors.Join(err, os.Chmod(path, 0o444))
		}
		return os.Chmod(path, 0o755)
	}))
	return layout(dir)
}

// filesOf returns the names, sizes and times of all that is in a directory.
func filesOf(t *testing.T, dir layout) map[string]string {
	t.Helper()
	all := map[string]string{}
	mustDo(t, filepath.WalkDir(string(dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[path] = info.Mode().String() + info.ModTime().String()
		}
		return err
	}))
	return all
}

// A whole blob of another cache is read there, and nothing is written.
func TestShared(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client, content := r.client(t), randomBytes(1, 4*mib)
	img := r.image("a", content)
	site := sharedCache(t, client, img)
	sent, before := r.sent.Load(), filesOf(t, site)
	c := openCache(t, t.TempDir(), Options{Shared: []string{t.TempDir(), string(site)}, Verify: Strict})
	for range 2 {
		b := openBlob(t, c, client, img)
		mustRead(t, b, content, 0, 4*mib)
		if f, ok := b.File(); !ok || f.Name() != site.file(b.Key()) || b.State() != Cached {
			t.Errorf("read from %v (%v, %s)", f, ok, b.State())
		}
		mustDo(t, b.Close())
	}
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes were fetched", now-sent)
	}
	if used, _ := c.Usage(); used != 0 {
		t.Errorf("%d bytes of another cache are counted", used)
	}
	for info := range c.Infos() {
		t.Errorf("listed: %+v", info)
	}
	mustDo(t, c.Remove(KeyOf("lab", img)))
	if diff := cmp.Diff(before, filesOf(t, site)); diff != "" {
		t.Errorf("the shared cache changed:\n%s", diff)
	}
}

// The word of the owner of a shared cache counts, as that of the one who named it would.
func TestShared_anotherOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	r := newRegistry(t)
	client, content := r.client(t), randomBytes(1, mib)
	img := r.image("a", content)
	site := sharedCache(t, client, img)
	mustDo(t, filepath.WalkDir(string(site), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 4242, -1))
	}))
	sent := r.sent.Load()
	c := openCache(t, t.TempDir(), Options{Shared: []string{string(site)}})
	b := openBlob(t, c, client, img)
	mustRead(t, b, content, 0, mib)
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes were fetched", now-sent)
	}
	if f, err := c.table.lookup(b.Key()); err != nil || f.main.vouched != nil {
		t.Errorf("the blob was hashed (%v), though its owner noted that it matched", err)
	}
}

// What of a shared cache may not be what it should be is read once and compared, and
// what others may have changed is not looked at.
func TestShared_doubts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(t *testing.T, path string)
		used   bool
	}{
		"no note":            {func(t *testing.T, path string) { mustDo(t, os.Remove(path+mapSuffix)) }, true},
		"another time":       {func(t *testing.T, path string) { mustDo(t, os.Chtimes(path, time.Time{}, time.Unix(5, 0))) }, true},
		"other bytes":        {func(t *testing.T, path string) { rewrite(t, path, func(b []byte) []byte { b[5] ^= 1; return b }) }, false},
		"writable":           {func(t *testing.T, path string) { mustDo(t, os.Chmod(path, 0o664)) }, false},
		"writable directory": {func(t *testing.T, path string) { mustDo(t, os.Chmod(filepath.Dir(path), 0o777)) }, false},
		"another user's": {func(t *testing.T, path string) {
			if os.Getuid() != 0 {
				t.Skip("only root can give a file away")
			}
			mustDo(t, os.Chown(path, 4242, -1))
		}, false},
		"a link": {func(t *testing.T, path string) {
			mustDo(t, os.Rename(path, path+"x"), os.Symlink(path+"x", path))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client, content := r.client(t), randomBytes(1, 4*mib)
			img := r.image("a", content)
			site := sharedCache(t, client, img)
			tt.change(t, site.file(KeyOf("lab", img)))
			sent := r.sent.Load()
			c := openCache(t, t.TempDir(), Options{Shared: []string{string(site)}})
			mustRead(t, openBlob(t, c, client, img), content, 0, 4*mib)
			if used := r.sent.Load() == sent; used != tt.used {
				t.Errorf("used: %v, want %v", used, tt.used)
			}
		})
	}
}
