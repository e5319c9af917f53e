// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A miser answers each request with a few bytes, and then no more.
type miser struct {
	piece    int64
	requests atomic.Int64
}

func (*miser) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, errors.ErrUnsupported
}

func (m *miser) Open(_ context.Context, _ backends.Image, off, n int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	return &miserly{off: off, left: min(m.piece, n)}, nil
}

type miserly struct{ off, left int64 }

func (b *miserly) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := min(int64(len(p)), b.left)
	copy(p[:n], numbered(b.off, n))
	b.off, b.left = b.off+n, b.left-n
	return int(n), nil
}

func (*miserly) Close() error { return nil }

// What brings a byte at each request is no progress: the reader gets an error in
// time, and when nobody reads any more nothing is asked.
func TestDrip_ends(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		piece int64
		timeout,
		limit time.Duration // of the read
		whole bool
	}{
		"a byte":                      {1, 0, time.Minute, false},
		"a byte, and a short timeout": {1, 8 * time.Second, 8 * time.Second, false},
		"enough":                      {backends.LeastProgress, 8 * time.Second, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				c := openCache(t, dir, Options{})
				b := &miser{piece: tt.piece}
				client := backends.NewClient("lab", b, backends.ClientOptions{MaxElapsed: tt.timeout})
				blob, err := c.Blob(t.Context(), client, distantImage(3*mib))
				mustDo(t, err)
				start := time.Now()
				buf := make([]byte, mib)
				_, err = blob.ReadAtContext(t.Context(), buf, 0)
				if took := time.Since(start); (err == nil) != tt.whole || took > tt.limit {
					t.Errorf("the read gave %v after %v and %d requests", err, took, b.requests.Load())
				}
				if tt.whole && string(buf) != string(numbered(0, mib)) {
					t.Error("other bytes")
				}
				mustDo(t, blob.Close())
				time.Sleep(10 * time.Minute)
				asked := b.requests.Load()
				time.Sleep(time.Hour)
				if now := b.requests.Load(); !tt.whole && (now != asked || now > 40) {
					t.Errorf("%d requests, and %d an hour later, though nobody reads", asked, now)
				}
				mustDo(t, c.Close())
			})
		})
	}
}
