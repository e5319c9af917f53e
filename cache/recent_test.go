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

// A list of another boot, or about something else, is not believed.
func TestRecentOfAnotherBoot(t *testing.T) {
	t.Parallel()
	const size = 200 * chunkSize
	path := t.TempDir() + "/x.recent"
	have := newBitmap(chunks(size))
	have.set(3)
	r := startRecent(path, "boot", "sha256:ab", "sha256:ab", size, have)
	if r == nil {
		t.Fatal("startRecent = nil")
	}
	defer r.close()
	have.set(130)
	r.note(130, have)
	got, ok := readRecent(path, "boot", "sha256:ab", "sha256:ab", size)
	if !ok || got.count() != 2 || !got.has(3) || !got.has(130) {
		t.Fatalf("readRecent = %v, %v; want chunks 3 and 130", got, ok)
	}
	for _, tt := range []struct {
		boot   string
		key    Key
		digest string
		size   int64
	}{
		{"next", "sha256:ab", "sha256:ab", size},
		{"", "sha256:ab", "sha256:ab", size},
		{"boot", "sha256:cd", "sha256:ab", size},
		{"boot", "sha256:ab", "md5:cd", size},
		{"boot", "sha256:ab", "sha256:ab", size + 1},
	} {
		if _, ok := readRecent(path, tt.boot, tt.key, tt.digest, tt.size); ok {
			t.Errorf("readRecent(%+v) believes a list that is about something else", tt)
		}
	}
	have.clear(3)
	if err := r.replace(have); err != nil {
		t.Fatal(err)
	}
	if got, ok := readRecent(path, "boot", "sha256:ab", "sha256:ab", size); !ok || got.has(3) {
		t.Errorf("after replace: %v, %v", got, ok)
	}
}
