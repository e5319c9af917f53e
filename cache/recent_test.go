// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"testing"
	"time"
)

// What a killed process has written is not fetched again: a copy of the
// directory is what the kill leaves behind.
func TestRecentChunksOutliveTheProcess(t *testing.T) {
	t.Parallel()
	if bootID() == "" {
		t.Skip("this system does not tell one boot from another")
	}
	r, content := newRegistry(t), randomBytes(3, 9*mib+17)
	img := r.image("image", content)
	dir := t.TempDir()
	c := openCache(t, dir, Options{NoBackground: true, dirtyAge: time.Hour})
	b := openBlob(t, c, r.client(t), img)
	mustRead(t, b, content, 2*mib, 3*mib)
	if _, err := os.Stat(b.data.Load().item.slot().mapOf()); err == nil {
		t.Fatal("the map was written already: the test shows nothing")
	}
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	sent := r.sent.Load()
	again := openCache(t, left, Options{NoBackground: true})
	if have := again.Info(KeyOf("r", img)).Have; have < 3*mib {
		t.Errorf("%d bytes are known to be here after the restart, want at least %d", have, 3*mib)
	}
	mustRead(t, openBlob(t, again, r.client(t), img), content, 2*mib, 3*mib)
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes were fetched again", now-sent)
	}
}
