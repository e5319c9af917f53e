// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Of a small blob no wrong byte is given out, wherever the read begins.
func TestLazy_small(t *testing.T) {
	t.Parallel()
	r, content := newRegistry(t), randomBytes(5, 3*mib+5)
	img := r.image("small", content)
	r.set(faults{mangle: func(_ string, off int64, b []byte) {
		if i := 2*mib + 7 - off; 0 <= i && i < int64(len(b)) {
			b[i] ^= 1
		}
	}})
	c := openCache(t, t.TempDir(), Options{StrictSize: 4 * mib})
	client, handles := r.client(t), map[int64]*Blob{}
	for _, off := range []int64{0, mib, 3 * mib} {
		handles[off] = openBlob(t, c, client, img)
	}
	for off, b := range handles {
		n, err := b.ReadAt(make([]byte, 5), off)
		if n != 0 || !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("ReadAt(%d) = %d, %v; want nothing and %v", off, n, err, backends.ErrCorrupt)
		}
	}
}

// A good small blob is whole after its first read.
func TestStrict_good(t *testing.T) {
	t.Parallel()
	r, content := newRegistry(t), randomBytes(6, 3*mib+5)
	img := r.image("small", content)
	c := openCache(t, t.TempDir(), Options{StrictSize: 4 * mib, NoBackground: true})
	b := openBlob(t, c, r.client(t), img)
	if b.Has(0, 1) {
		t.Error("Has is true before the digest was compared")
	}
	mustRead(t, b, content, mib, 100)
	if b.State() != Cached || !b.Has(0, b.Size()) {
		t.Errorf("state %s after a read", b.State())
	}
	if sent := r.sent.Load(); sent != int64(len(content)) {
		t.Errorf("%d bytes were sent of %d", sent, len(content))
	}
}

// Whoever reads all of a large blob does not get to its end if it is wrong.
func TestWholeReaderLearnsOfWrongBytes(t *testing.T) {
	t.Parallel()
	r, content := newRegistry(t), randomBytes(7, 9*mib+5)
	img := r.image("large", content)
	r.set(faults{mangle: func(_ string, off int64, b []byte) {
		if off == 0 {
			b[0] ^= 1
		}
	}})
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, r.client(t), img)
	var got bytes.Buffer
	n, err := io.CopyBuffer(&got, struct{ io.Reader }{io.NewSectionReader(b, 0, b.Size())}, make([]byte, 64<<10))
	if !errors.Is(err, backends.ErrCorrupt) || n == b.Size() {
		t.Errorf("read %d of %d bytes, %v; want %v before the end", n, b.Size(), err, backends.ErrCorrupt)
	}
}

// No two handles together get all of an image that is wrong.
func TestLazy_betweenHandles(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(3, 4*mib+5)
	img := r.image("a", content)
	r.set(faults{mangle: flip(7, 1e9)})
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	client := r.client(t)
	first := openBlob(t, c, client, img)
	got := make([]byte, 2*mib)
	if _, err := first.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	first.Close() // what the kernel has of it is there for the next one
	second := openBlob(t, c, client, img)
	if !first.Epoch().Agrees(second.Epoch()) {
		t.Errorf("epochs %v and %v of one download", first.Epoch(), second.Epoch())
	}
	mustRead(t, second, content, 2*mib, mib)
	if !second.Has(2*mib, 10) || second.Has(3*mib, 10) {
		t.Errorf("Has does not tell what is here")
	}
	mustRead(t, second, content, 4*mib, 5)
	if _, err := second.ReadAt(got[:mib], 3*mib); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("the last bytes that nobody had yet: %v, want ErrCorrupt", err)
	}
	r.set(faults{})
	third := openBlob(t, c, client, img)
	if third.Epoch().Agrees(second.Epoch()) {
		t.Error("another download has the same epoch")
	}
	mustRead(t, third, content, 0, 4*mib+5)
}

// The digest may be found wrong between the moment when the last bytes come in and
// that when they are given out: then they are not.
func TestLazy_foundOutFirst(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(3, 4*mib)
	img := r.image("a", content)
	r.set(faults{mangle: flip(7, 1e9)})
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), img)
	if _, err := b.ReadAt(make([]byte, 3*mib), 0); err != nil {
		t.Fatal(err)
	}
	d := b.data.Load()
	// It comes here, and is not given out.
	if err := d.download.Await(t.Context(), 3*mib, 4*mib, &b.window); err != nil && !errors.Is(err, backends.ErrCorrupt) {
		t.Fatal(err)
	}
	<-d.settled
	if b.Has(3*mib, mib) {
		t.Error("the kernel is told to read what is wrong")
	}
	if !d.gives(3*mib, 4*mib) {
		t.Error("the last bytes need not match")
	}
	if n, err := d.read(t.Context(), make([]byte, mib), 3*mib, &b.window); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("read gives %d bytes, %v, want ErrCorrupt", n, err)
	}
}

// What one handle got of a bad download, another one cannot go on from: the
// kernel would show it pages of both.
func TestLazy_noMixture(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(3, 4*mib)
	img := r.image("a", content)
	r.set(faults{mangle: flip(7, 1)})
	c := openCache(t, t.TempDir(), Options{})
	client := r.client(t)
	first, second, third := openBlob(t, c, client, img), openBlob(t, c, client, img), openBlob(t, c, client, img)
	if _, err := first.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	mustWait(t, third) // asked for by name: it gets the second download
	mustRead(t, third, content, 0, 4*mib)
	if _, err := second.ReadAt(make([]byte, 10), 3*mib); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("read of a handle opened before: %v, want ErrCorrupt", err)
	}
}

// Strict readers get nothing before everything is here, and then what is right.
func TestStrict(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 2*mib + 3, "large": 20*mib + 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			content := randomBytes(4, size)
			img := r.image("a", content)
			r.set(faults{mangle: flip(mib+5, 1)})
			c := openCache(t, t.TempDir(), Options{Verify: Strict, StrictSize: -1})
			b := openBlob(t, c, r.client(t), img)
			mustRead(t, b, content, 9, 10)
			if b.State() != Cached {
				t.Errorf("bytes were given out while the blob was %v", b.State())
			}
			mustRead(t, b, content, int64(size)-3, 3)
		})
	}
	t.Run("no digest", func(t *testing.T) {
		t.Parallel()
		r := newRegistry(t)
		content := randomBytes(4, 3*mib)
		img := r.image("a", content)
		img.Digest = ""
		c := openCache(t, t.TempDir(), Options{Verify: Strict})
		b := openBlob(t, c, r.client(t), img)
		mustRead(t, b, content, 9, 10)
		if b.State() != Cached {
			t.Errorf("bytes were given out while the blob was %v", b.State())
		}
	})
}

// What is wrong for good, and a reader who does not wait, end with errors.
func TestStrict_errors(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(4, 20*mib)
	img := r.image("a", content)
	r.set(faults{mangle: flip(19*mib, 1e9)})
	c := openCache(t, t.TempDir(), Options{Verify: Strict})
	b := openBlob(t, c, r.client(t), img)
	if _, err := b.ReadAt(make([]byte, 10), 0); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("a wrong image: %v, want ErrCorrupt", err)
	}
	if info := c.Info(b.Key()); info.Refused.IsZero() || !errors.Is(info.Err, backends.ErrCorrupt) {
		t.Errorf("Info after two mismatches: %+v", info)
	}
	n := 0
	for info := range c.Infos() {
		n++
		if info.State != Remote || info.Refused.Before(time.Now()) {
			t.Errorf("Infos of a refused blob: %+v", info)
		}
	}
	if n != 1 {
		t.Errorf("%d blobs are listed, want the refused one", n)
	}
}

// Strict readers do not wait for ever.
func TestStrict_patience(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	release := make(chan struct{})
	defer close(release)
	r.set(faults{hang: release})
	c := openCache(t, t.TempDir(), Options{Verify: Strict, Patience: 200 * time.Millisecond})
	slow := openBlob(t, c, r.client(t), r.image("b", randomBytes(5, 20*mib)))
	if _, err := slow.ReadAt(make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing comes in: %v, want DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := slow.ReadAtContext(ctx, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v, want Canceled", err)
	}
}
