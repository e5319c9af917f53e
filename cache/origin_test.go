// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

// plant makes a registry that names the digest of content and sends something else,
// whose last MiB never comes.
func plant(t *testing.T, content []byte) (r *registry, img backends.Image) {
	evil := newRegistry(t)
	img = evil.image("a", randomBytes(66, len(content)))
	img.Digest = sha256Of(content)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	last := int64(len(content) - mib)
	evil.set(faults{hang: release, hangIf: func(from, to int64) bool { return to > last }})
	return evil, img
}

// What one registry sent under the digest of another's image is nothing that the
// other one's readers ever see, at the same time or after a restart.
func TestOrigin_planted(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 8*mib)
	good := newRegistry(t)
	img := good.image("a", content)
	evil, fake := plant(t, content)
	dir := t.TempDir()
	c := openCache(t, dir, Options{NoBackground: true})
	evilClient, goodClient := evil.client(t), good.client(t)
	poison := make([]byte, 6*mib)
	bad := openBlob(t, c, evilClient, fake)
	if _, err := bad.ReadAt(poison, 0); err != nil {
		t.Fatal(err)
	}
	mustRead(t, openBlob(t, c, goodClient, img), content, 0, mib) // beside it
	if got := c.InfoOf(goodClient, img).Have; got >= 2*mib {
		t.Errorf("%d bytes are here of the good image", got)
	}
	mustDo(t, c.Close())

	sent := good.sent.Load()
	c = openCache(t, dir, Options{NoBackground: true})
	b := openBlob(t, c, goodClient, img)
	mustRead(t, b, content, mib, 6*mib)
	mustRead(t, b, content, 0, 8*mib)
	if got := good.sent.Load() - sent; got < 6*mib {
		t.Errorf("the good registry sent %d bytes after the restart", got)
	}
	// Verified is verified, whoever names it.
	mustWait(t, b)
	mustRead(t, openBlob(t, c, evilClient, fake), content, 0, 8*mib)
}

// A registry that claims another size of a digest spoils nothing of the others'.
func TestOrigin_wrongSize(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 4*mib)
	good, evil := newRegistry(t), newRegistry(t)
	img, fake := good.image("a", content), evil.image("a", content)
	fake.Size += 5
	dir := t.TempDir()
	goodClient, evilClient := good.client(t), evil.client(t)
	c := openCache(t, dir, Options{NoBackground: true})
	mustRead(t, openBlob(t, c, evilClient, fake), content, 0, mib)
	mustRead(t, openBlob(t, c, goodClient, img), content, 0, mib)
	mustDo(t, c.Close())
	c = openCache(t, dir, Options{NoBackground: true})
	b := openBlob(t, c, goodClient, img)
	mustWait(t, b)
	mustRead(t, b, content, 0, 4*mib)
}

// When the bytes from one origin are verified, who read those from others goes on
// with them, or learns that it was given something else.
func TestOrigin_overtaken(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 8*mib)
	good, mirror := newRegistry(t), newRegistry(t)
	img, same := good.image("a", content), mirror.image("b", content)
	evil, fake := plant(t, content)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	mirrored := openBlob(t, c, mirror.client(t), same)
	mustRead(t, mirrored, content, mib, mib)
	poisoned := openBlob(t, c, evil.client(t), fake)
	if _, err := poisoned.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	closed, err := c.Blob(t.Context(), newMirror(t, "third", content).client(t), same)
	mustDo(t, err)
	mustRead(t, closed, content, 0, mib)
	mustDo(t, closed.Close())
	epoch, sent := mirrored.Epoch(), mirror.sent.Load()

	b := openBlob(t, c, good.client(t), img)
	mustWait(t, b)
	mustRead(t, mirrored, content, 0, 8*mib)
	if _, ok := mirrored.File(); !ok || mirror.sent.Load() != sent || !mirrored.Epoch().Agrees(epoch) {
		t.Errorf("a mirror's reader: whole %v, %d bytes more, epoch %v after %v", ok, mirror.sent.Load()-sent, mirrored.Epoch(), epoch)
	}
	if !mirrored.Epoch().Agrees(b.Epoch()) {
		t.Error("verified bytes of two origins do not agree")
	}
	if _, err := poisoned.ReadAt(make([]byte, 10), 5*mib); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("a reader of other bytes: %v, want ErrCorrupt", err)
	}
	if poisoned.Epoch().Agrees(b.Epoch()) {
		t.Error("wrong bytes agree with verified ones")
	}
	eventually(t, "one file and its map", func() bool {
		left, _ := filepath.Glob(c.dir.file(b.Key()) + "*")
		return len(left) == 2
	})
	if used, _ := c.Usage(); used < 8*mib || used > 9*mib {
		t.Errorf("%d bytes are used", used)
	}
}

func newMirror(t *testing.T, _ string, content []byte) *registry {
	r := newRegistry(t)
	r.image("b", content)
	return r
}

// What an earlier version kept without its origin is not believed.
func TestOrigin_unknown(t *testing.T) {
	t.Parallel()
	dir := layout(t.TempDir())
	key := Key(sha256Of([]byte("content")))
	mustDo(t, dir.room(key))
	for _, suffix := range []string{partSuffix, mapSuffix, recentSuffix, streamSuffix, mapSuffix + chunks.TmpSuffix} {
		mustDo(t, os.WriteFile(dir.file(key)+suffix, []byte("old"), 0o600))
	}
	c := openCache(t, string(dir), Options{})
	if left, _ := filepath.Glob(dir.file(key) + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if used, _ := c.Usage(); used != 0 || c.Info(key).State != Remote {
		t.Errorf("%d bytes used, %v", used, c.Info(key))
	}
}

// A download of unknown size holds nobody up who removes its blob.
func TestCache_removeStreaming(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client, img := r.client(t), r.image("a", randomBytes(1, mib))
	img.Size = -1
	release := make(chan struct{})
	defer close(release)
	r.set(faults{hang: release})
	c := openCache(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error)
	go func() {
		_, err := c.Blob(ctx, client, img)
		opened <- err
	}()
	eventually(t, "request", func() bool { return r.open.Load() == 1 })
	key := KeyOf("lab", img)
	if err := c.Remove(key); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove while somebody waits = %v, want ErrInUse", err)
	}
	cancel()
	if err := <-opened; !errors.Is(err, context.Canceled) {
		t.Errorf("Blob = %v, want Canceled", err)
	}
	mustDo(t, c.Remove(key))
	eventually(t, "end of the request", func() bool { return r.open.Load() == 0 })
	eventually(t, "end of its file", func() bool {
		left, _ := filepath.Glob(c.dir.file(key) + "*")
		return len(left) == 0
	})
}
