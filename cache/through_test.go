// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// Who reads through memory, as the disk is full, goes on with what comes in otherwise, or
// is told how the blob ended.
func TestReadThrough_ends(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(t *testing.T, c *Cache, d *data, img backends.Image, content []byte)
		want error
	}{
		"adopted": {func(t *testing.T, c *Cache, _ *data, img backends.Image, content []byte) {
			path := filepath.Join(t.TempDir(), "spooled")
			mustDo(t, os.WriteFile(path, content, 0o600), c.Adopt(path, img.Digest, img.Size))
		}, nil},
		"wrong": {func(_ *testing.T, _ *Cache, d *data, _ backends.Image, _ []byte) {
			(&committer{data: d}).spoil(backends.ErrCorrupt)
		}, backends.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client, content := r.client(t), randomBytes(1, 3*mib)
			img := r.image("a", content)
			hang := make(chan struct{})
			defer close(hang)
			r.set(faults{hang: hang})
			c := openCache(t, t.TempDir(), Options{NoBackground: true})
			d := openBlob(t, c, client, img).data.Load()
			got, read := make([]byte, 2*mib), make(chan error, 1)
			go func() {
				_, err := d.readThrough(t.Context(), got, mib/2)
				read <- err
			}()
			eventually(t, "request", func() bool { return r.open.Load() > 0 })
			tt.end(t, c, d, img, content)
			if err := <-read; !errors.Is(err, tt.want) || err == nil && !bytes.Equal(got, content[mib/2:][:2*mib]) {
				t.Errorf("read: %v (or other bytes), want %v", err, tt.want)
			}
		})
	}
}
