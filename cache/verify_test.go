// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// flip changes one byte of each answer that has it, as often as times says.
func flip(at int64, times int64) func(string, int64, []byte) {
	var n atomic.Int64
	return func(_ string, off int64, b []byte) {
		if off <= at && at < off+int64(len(b)) && n.Add(1) <= times {
			b[at-off] ^= 1
		}
	}
}

// A download that does not match its digest is dropped and made once more.
func TestVerify_secondDownload(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 4*mib)
	img := r.image("a", content)
	r.set(faults{mangle: flip(2*mib+5, 1)})
	c := openCache(t, t.TempDir(), Options{})
	client := r.client(t)
	touched := openBlob(t, c, client, img)
	mustRead(t, touched, content, 0, 10)
	fresh := openBlob(t, c, client, img)
	mustWait(t, fresh) // it gave out no byte yet: it goes on with the second download
	mustRead(t, fresh, content, 0, 4*mib)
	if _, err := touched.ReadAt(make([]byte, 10), 0); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("a handle that gave out bytes of the bad download: %v, want ErrCorrupt", err)
	}
	if err := touched.Wait(t.Context(), nil); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Wait on it: %v, want ErrCorrupt", err)
	}
	if touched.Has(0, 1) {
		t.Error("bad bytes are still to be had")
	}
}

// A service that keeps sending other bytes is asked twice, not for ever.
func TestVerify_refused(t *testing.T) {
	t.Parallel()
	for name, digest := range map[string]func([]byte) string{"sha256": sha256Of, "md5": md5Of} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			content := randomBytes(1, 2*mib+9)
			img := r.image("a", content)
			img.Digest = digest(content)
			r.set(faults{mangle: flip(2*mib+5, 1e9)})
			c := openCache(t, t.TempDir(), Options{})
			client := r.client(t)
			b := openBlob(t, c, client, img)
			if err := b.Wait(t.Context(), nil); !errors.Is(err, backends.ErrCorrupt) {
				t.Errorf("Wait = %v, want ErrCorrupt", err)
			}
			sent := r.sent.Load()
			if sent > 2*int64(len(content)) {
				t.Errorf("%d bytes fetched of an image of %d", sent, len(content))
			}
			if _, err := c.Blob(t.Context(), client, img); !errors.Is(err, backends.ErrCorrupt) {
				t.Errorf("Blob = %v, want ErrCorrupt", err)
			}
			if now := r.sent.Load(); now != sent {
				t.Errorf("a third download began")
			}
			if list, _ := filepath.Glob(filepath.Join(string(c.dir), "blobs/*/*/*")); len(list) > 0 {
				t.Errorf("files left: %v", list)
			}
			if info := c.Info(b.Key()); !errors.Is(info.Err, backends.ErrCorrupt) {
				t.Errorf("Info.Err = %v", info.Err)
			}
			if err := c.Remove(b.Key()); err != nil {
				t.Errorf("Remove: %v", err)
			}
			r.set(faults{})
			mustWait(t, openBlob(t, c, client, img)) // removed: may be tried again
		})
	}
}

func md5Of(b []byte) string {
	sum := md5.Sum(b)
	return "md5:" + hex.EncodeToString(sum[:])
}

// An image that changes while it is fetched gives no mixture.
func TestVerify_changedUpstream(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 4*mib)
	img := r.image("a", content)
	img.Digest = "" // nothing but the validator tells
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), img)
	mustRead(t, b, content, 0, mib)
	r.put("a", randomBytes(9, 4*mib+1))
	if _, err := b.ReadAt(make([]byte, 10), 3*mib); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("read of another version: %v, want ErrChanged", err)
	}
	mustRead(t, b, content, 0, mib)
}

// One name of the bytes is gone, another serves.
func TestVerify_otherSource(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 4*mib)
	client, good, bad := r.client(t), r.image("a", content), r.image("b", content)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, client, good)
	openBlob(t, c, client, bad)
	r.remove("b")
	mustRead(t, b, content, 3*mib, 10)
	mustRead(t, b, content, 0, 10)
	if n := r.requests.Load(); n != 3 {
		t.Errorf("%d requests, want one for the name that is gone, and two", n)
	}
}

// An image shorter than its listing says does not hang anybody.
func TestVerify_shorterThanSaid(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, mib)
	img := r.image("a", content)
	img.Size += 100
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), img)
	if _, err := b.ReadAt(make([]byte, 10), mib+50); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("read beyond what there is: %v, want ErrUnavailable", err)
	}
}

// Files that somebody changed are not given out.
func TestVerify_changedOnDisk(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 2*mib)
	damage := map[string]func(t *testing.T, path string){
		"a byte": func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { b[5] ^= 1; return b })
		},
		"shorter": func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { return b[:mib] })
		},
		"a link": func(t *testing.T, path string) {
			mustDo(t, os.Rename(path, path+"x"), os.Symlink(path+"x", path))
		},
		// With the time of the one that was verified.
		"writable by others": func(t *testing.T, path string) { replaceKeepingTime(t, path); mustDo(t, os.Chmod(path, 0o577)) },
		"another user's": func(t *testing.T, path string) {
			if os.Getuid() != 0 {
				t.Skip("only root can give a file away")
			}
			replaceKeepingTime(t, path)
			mustDo(t, os.Lchown(path, 4242, -1))
		},
		"two names": func(t *testing.T, path string) { mustDo(t, os.Link(path, path+"x")) },
		"a folder":  func(t *testing.T, path string) { mustDo(t, os.Remove(path), os.Mkdir(path, 0o700)) },
	}
	for name, fn := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client, dir := r.client(t), t.TempDir()
			img := r.image("a", content)
			c := openCache(t, dir, Options{})
			mustWait(t, openBlob(t, c, client, img))
			path, _ := c.Path(KeyOf("lab", img))
			c.Close()
			fn(t, path)
			c = openCache(t, dir, Options{})
			b := openBlob(t, c, client, img)
			mustRead(t, b, content, 0, 2*mib)
			mustWait(t, b)
			if got := r.sent.Load(); got != 4*mib {
				t.Errorf("%d bytes fetched, want twice the image", got)
			}
		})
	}
}

// replaceKeepingTime does what somebody would who can write to the directory.
func replaceKeepingTime(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	mustDo(t, err)
	rewrite(t, path, func(b []byte) []byte { b[5] ^= 1; return b })
	mustDo(t, os.Chmod(path, 0o555), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func rewrite(t *testing.T, path string, fn func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	mustDo(t, err, os.Chmod(path, 0o600), os.WriteFile(path, fn(b), 0o600))
}

// Bit rot leaves no trace but the digest.
func TestCache_verify(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	content := randomBytes(1, 2*mib)
	img := r.image("a", content)
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, client, img)
	key := b.Key()
	if err := c.Verify(t.Context(), key, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Verify of a partial blob = %v, want ErrInvalid", err)
	}
	mustRead(t, b, content, 0, 10)
	mustWait(t, b)
	if err := c.Verify(t.Context(), key, nil); err != nil {
		t.Errorf("Verify: %v", err)
	}
	path, _ := c.Path(key)
	before, err := os.Stat(path)
	rewrite(t, path, func(b []byte) []byte { b[5] ^= 1; return b })
	mustDo(t, err, os.Chtimes(path, time.Time{}, before.ModTime()))
	if err := c.Verify(t.Context(), key, nil); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Verify = %v, want ErrCorrupt", err)
	}
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("read of the open handle = %v, want ErrCorrupt", err)
	}
	again := openBlob(t, c, client, img)
	mustRead(t, again, content, 0, mib)
}

func TestCache_adopt(t *testing.T) {
	t.Parallel()
	content := randomBytes(1, 3*mib)
	put := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "spooled")
		mustDo(t, os.WriteFile(path, content, 0o600))
		return path
	}
	tests := map[string]struct {
		file string
		open func(t *testing.T, b *Blob)
	}{
		"nothing here": {},
		"partly here":  {open: func(t *testing.T, b *Blob) { mustRead(t, b, content, mib, mib); b.Close() }},
		"open":         {open: func(t *testing.T, b *Blob) { mustRead(t, b, content, mib, mib) }},
		"whole":        {open: mustWait},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client := r.client(t)
			img := r.image("a", content)
			c := openCache(t, t.TempDir(), Options{NoBackground: true})
			b := openBlob(t, c, client, img)
			if test.open != nil {
				test.open(t, b)
			}
			sent := r.sentInAll(t)
			path := put(t)
			if err := c.Adopt(path, img.Digest, img.Size); err != nil {
				t.Fatalf("Adopt: %v", err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
			if _, ok := c.Path(b.Key()); !ok {
				t.Error("no path after Adopt")
			}
			if name != "partly here" {
				mustRead(t, b, content, 0, 3*mib)
				if _, ok := b.File(); !ok {
					t.Error("an open handle has no whole file")
				}
			}
			mustRead(t, openBlob(t, c, client, img), content, 0, 3*mib)
			if now := r.sent.Load(); now != sent {
				t.Errorf("%d bytes fetched of what was adopted", now-sent)
			}
		})
	}
}

// Who was given other bytes before must not go on as if nothing had been.
func TestCache_adoptOverLies(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client, content := r.client(t), randomBytes(1, 3*mib)
	img := r.image("a", content)
	r.set(faults{mangle: flip(mib+5, 1)})
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, client, img)
	p := make([]byte, mib)
	if _, err := b.ReadAt(p, mib); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(p, content[mib:2*mib]) {
		t.Fatal("the registry did not lie")
	}
	sent, epoch := r.sentInAll(t), b.Epoch()
	path := filepath.Join(t.TempDir(), "spooled")
	mustDo(t, os.WriteFile(path, content, 0o600), c.Adopt(path, img.Digest, img.Size))
	if _, err := b.ReadAt(p, 0); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("reading on gives %v", err)
	}
	again := openBlob(t, c, client, img)
	mustRead(t, again, content, 0, 3*mib)
	if _, ok := again.File(); !ok || again.Epoch().Agrees(epoch) {
		t.Errorf("the adopted blob: whole %v, epoch %v after %v", ok, again.Epoch(), epoch)
	}
	if now := r.sent.Load(); now != sent {
		t.Errorf("%d bytes fetched of what was adopted", now-sent)
	}
}

// Who waits while requests are under way goes on with what was adopted, without any
// answer to them, or is told how the blob ended: never that the cache was closed.
func TestCache_adoptWhileFetched(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flips int64 // bytes of the first answer that are wrong
		want  error
	}{
		"the same bytes": {0, nil},
		"other bytes":    {1, backends.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			client, content := r.client(t), randomBytes(1, 3*mib)
			img := r.image("a", content)
			c := openCache(t, t.TempDir(), Options{NoBackground: true})
			b := openBlob(t, c, client, img)
			r.set(faults{mangle: flip(mib+5, tt.flips)})
			if _, err := b.ReadAt(make([]byte, mib), mib); err != nil {
				t.Fatal(err)
			}
			r.sentInAll(t)
			hang := make(chan struct{})
			defer close(hang)
			r.set(faults{hang: hang})
			d, waited := b.data.Load(), make(chan error, 1)
			go func() { waited <- b.Wait(t.Context(), nil) }()
			eventually(t, "both requests for the rest", func() bool { return r.open.Load() >= 2 })
			c.Watch(func(Key, State) { // before it is said how the blob ended
				if d.phase.Load() == partial {
					return
				}
				eventually(t, "end of the transfers", d.download.Idle)
				for range 1000 {
					runtime.Gosched() // who waits looks at that
				}
			})
			path := filepath.Join(t.TempDir(), "spooled")
			mustDo(t, os.WriteFile(path, content, 0o600), c.Adopt(path, img.Digest, img.Size))
			if err := <-waited; !errors.Is(err, tt.want) {
				t.Errorf("Wait = %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				mustRead(t, b, content, 0, 3*mib)
			}
			mustRead(t, openBlob(t, c, client, img), content, 0, 3*mib)
		})
	}
}

func TestCache_adoptRefuses(t *testing.T) {
	t.Parallel()
	c := openCache(t, t.TempDir(), Options{})
	path := filepath.Join(t.TempDir(), "f")
	mustDo(t, os.WriteFile(path, []byte("hello"), 0o600))
	for name, err := range map[string]error{
		"digest": c.Adopt(path, "md5:00112233445566778899aabbccddeeff", 5),
		"path":   c.Adopt(path, "sha256:../../../../../../../../../../tmp/x", 5),
		"size":   c.Adopt(path, sha256Of([]byte("hello")), 6),
	} {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: Adopt = %v, want ErrInvalid", name, err)
		}
	}
	err := c.Adopt(path+"x", sha256Of([]byte("hello")), 5)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt of a missing file = %v", err)
	}
	// A file that somebody else holds too is copied, not taken.
	mustDo(t, os.Link(path, path+"2"), c.Adopt(path, sha256Of([]byte("hello")), 5))
	got, _ := c.Path(Key(sha256Of([]byte("hello"))))
	mustDo(t, os.WriteFile(path+"2", []byte("HELLO"), 0o600))
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, []byte("hello")) {
		t.Errorf("the blob is %q (%v) after its other name was written to", b, err)
	}
}

// While a blob is read again it can be opened, read, and removed.
func TestCache_verifyLetsOthersIn(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	content := randomBytes(1, 17*mib)
	img := r.image("a", content)
	c := openCache(t, t.TempDir(), Options{})
	mustWait(t, openBlob(t, c, client, img))
	key := KeyOf("lab", img)
	var seen []int64
	err := c.Verify(t.Context(), key, func(done, total int64) {
		seen = append(seen, done)
		b, err := c.Blob(t.Context(), client, img)
		if err != nil || total != img.Size {
			t.Fatalf("Blob at %d of %d: %v", done, total, err)
		}
		mustRead(t, b, content, mib, 100)
		b.Close()
	})
	if err != nil || len(seen) != 4 || seen[0] != 0 || seen[3] != img.Size {
		t.Errorf("Verify = %v, progress %v", err, seen)
	}

	held, err := c.Blob(t.Context(), client, img)
	mustDo(t, err)
	if err := c.Remove(key); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of an open blob = %v, want ErrInUse", err)
	}
	held.Close()
	c.Pin(key)
	if err := c.Remove(key); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of a pinned blob = %v, want ErrInUse", err)
	}
	c.Unpin(key)
}

// A blob that goes away while it is read again is not whole any more, whatever
// the reading shows.
func TestCache_verifyRemoved(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	img := r.image("a", randomBytes(1, 3*mib))
	c := openCache(t, t.TempDir(), Options{})
	b, err := c.Blob(t.Context(), client, img)
	mustDo(t, err)
	mustWait(t, b)
	b.Close()
	key := KeyOf("lab", img)
	removed := false
	err = c.Verify(t.Context(), key, func(int64, int64) {
		if !removed {
			eventually(t, "nobody has it open", func() bool { return c.Remove(key) == nil })
			removed = true
		}
	})
	if !errors.Is(err, fs.ErrInvalid) || c.Info(key).State != Remote {
		t.Errorf("Verify = %v, and the blob is %v", err, c.Info(key).State)
	}
	if err := c.Remove(key); err != nil {
		t.Errorf("a second Remove: %v", err)
	}
}
