// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// Of a small blob no wrong byte is given out, wherever the read begins.
func TestStrict(t *testing.T) {
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
