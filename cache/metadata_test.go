// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"path/filepath"
	"testing"
)

// What registries told counts as blobs do, goes when there is no room, and can be
// removed.
func TestMetadata(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := filepath.Join(dir, "remotes", "lab", "manifests.pack")
	former := filepath.Join(dir, "remotes", "lab", "manifests", "ab", "file")
	write := func(path string, n int) {
		mustDo(t, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, randomBytes(1, n), 0o600))
	}
	there := func() bool { _, err := os.Stat(told); return err == nil }
	write(told, mib)
	write(former, 10)
	c := openCache(t, dir, Options{MaxBytes: 16 * mib})
	eventually(t, "end of the former layout", func() bool {
		_, err := os.Stat(filepath.Dir(filepath.Dir(former)))
		return os.IsNotExist(err)
	})
	if used, _ := c.Usage(); used < mib || c.Info(Metadata).OnDisk != used {
		t.Errorf("%d bytes are used, %d of metadata", used, c.Info(Metadata).OnDisk)
	}
	r := newRegistry(t)
	client := r.client(t)
	mustWait(t, openBlob(t, c, client, r.image("a", randomBytes(1, 8*mib))))
	if c.Trim(); !there() {
		t.Error("metadata was removed while there was room")
	}
	write(told, 12*mib) // more than its share
	c.Usage()
	if c.Trim(); there() {
		t.Error("metadata of three quarters of the limit stays")
	}
	if used, _ := c.Usage(); used < 8*mib {
		t.Error("a blob went for it")
	}
	write(told, 10)
	if mustDo(t, c.Remove(Metadata)); there() {
		t.Error("metadata is there after Remove")
	}
}

// Without room on the disk everything goes that can be fetched again.
func TestMetadata_noRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := filepath.Join(dir, "remotes", "lab", "index.json")
	mustDo(t, os.MkdirAll(filepath.Dir(told), 0o700), os.WriteFile(told, randomBytes(1, mib), 0o600))
	c := openCache(t, dir, Options{MinFree: 1 << 60})
	if freed := c.Trim(); freed < mib {
		t.Errorf("Trim freed %d bytes", freed)
	}
	if _, err := os.Stat(told); err == nil {
		t.Error("metadata stays while the disk is full")
	}
}
