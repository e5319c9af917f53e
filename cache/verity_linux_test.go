// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// verityDisk returns a directory on a filesystem with fs-verity, and the image
// file that it lies in. The test is skipped where the kernel was built without it.
func verityDisk(t *testing.T) (dir, disk string) {
	t.Helper()
	if _, err := os.Stat("/sys/fs/ext4/features/verity"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and a kernel with CONFIG_FS_VERITY")
	}
	disk, dir = filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	mustDo(t, os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 64*mib))
	run("mkfs.ext4", "-q", "-b", "4096", "-O", "verity", disk)
	run("mount", "-o", "loop", disk, dir)
	t.Cleanup(func() { run("umount", dir) })
	return dir, disk
}

// A byte that changes below the filesystem is an error, and what the kernel
// guards needs not be read again.
func TestVerity(t *testing.T) {
	dir, disk := verityDisk(t)
	r := newRegistry(t)
	client := r.client(t)
	content := randomBytes(1, 3*mib+5)
	img := r.image("a", content)
	c := openCache(t, dir, Options{FSVerity: true})
	mustWait(t, openBlob(t, c, client, img))
	key := KeyOf("lab", img)
	guarded := func() bool {
		m, err := readMap(c.dir.mapOf(key))
		return err == nil && m.Verity != ""
	}
	for deadline := time.Now().Add(10 * time.Second); !guarded() && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	path, _ := c.Path(key)
	if !guarded() || os.WriteFile(path, nil, 0) == nil {
		t.Fatal("the blob is not guarded")
	}
	mustDo(t, c.Verify(t.Context(), key, nil))
	if !guarded() {
		t.Error("Verify forgot that the blob is guarded")
	}
	c.Close()
	mustDo(t, os.Chtimes(path, time.Time{}, time.Now())) // another time, the same bytes
	c = openCache(t, dir, Options{FSVerity: true})
	sent := r.sent.Load()
	b := openBlob(t, c, client, img)
	mustRead(t, b, content, 0, 3*mib)
	if r.sent.Load() != sent {
		t.Error("fetched again")
	}

	f, ok := b.File()
	if !ok {
		t.Fatal("no file")
	}
	syscall.Sync()
	damage(t, disk, content[2*mib:2*mib+4096])
	mustDo(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	if n, err := f.ReadAt(make([]byte, 4096), 2*mib); !errors.Is(err, syscall.EIO) {
		t.Errorf("the kernel read %d bytes from a damaged page: %v, want EIO", n, err)
	}
	if err := c.Verify(t.Context(), key, nil); err == nil || c.Info(key).State != Remote {
		t.Errorf("Verify of a damaged blob: %v; it is %v", err, c.Info(key).State)
	}
	mustRead(t, openBlob(t, c, client, img), content, 0, 3*mib)
}

// damage changes a byte of a disk image, in the block that holds page.
func damage(t *testing.T, disk string, page []byte) {
	t.Helper()
	all, err := os.ReadFile(disk)
	mustDo(t, err)
	at := bytes.Index(all, page)
	if at < 0 {
		t.Fatal("the page is not on the disk")
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	mustDo(t, err)
	_, err = f.WriteAt([]byte{page[0] ^ 1}, int64(at))
	mustDo(t, err, f.Close())
}

// Where there is no fs-verity one line says so, and all works as without.
func TestVerity_unsupported(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	}), nil))
	r := newRegistry(t)
	client := r.client(t)
	dir, err := os.MkdirTemp("/dev/shm", "sregfs-guard-") //nolint:usetesting // a tmpfs is wanted: it has no fs-verity
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := openCache(t, dir, Options{FSVerity: true, Log: log})
	for _, name := range []string{"a", "b"} {
		content := randomBytes(uint64(name[0]), 2*mib)
		img := r.image(name, content)
		b := openBlob(t, c, client, img)
		mustWait(t, b)
		b.Close()
		mustRead(t, openBlob(t, c, client, img), content, 0, 2*mib)
	}
	c.Close()
	if n := strings.Count(text.String(), "fs-verity"); n != 1 {
		t.Errorf("%d lines about fs-verity, want 1:\n%s", n, &text)
	}
	if on, why := c.Verity(); on || why == nil {
		t.Errorf("Verity = %v, %v", on, why)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
