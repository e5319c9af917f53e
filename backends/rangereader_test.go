// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// Reading in order is one request, whatever the size of the reads; at any other place it is
// one more.
func TestRangeReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &moody{content: transferContent()}
		b.body = func(_ context.Context, _ int64, whole []byte) io.Reader { return bytes.NewReader(whole) }
		c := NewClient("lab", b, ClientOptions{})
		r := c.RangeReader(t.Context(), transferImage(b.content))
		got, err := io.ReadAll(iotest.OneByteReader(io.NewSectionReader(r, 0, 1<<16)))
		if err != nil || !bytes.Equal(got, b.content[:1<<16]) || b.opened.Load() != 1 {
			t.Errorf("%d bytes, %v, %d requests (or other bytes)", len(got), err, b.opened.Load())
		}
		size := int64(len(b.content))
		for _, tc := range []struct {
			off, want int64
			n         int
			err       error
		}{{size - 10, 10, 20, io.EOF}, {size, 0, 1, io.EOF}, {size + 5, 0, 1, io.EOF}, {-1, 0, 1, fs.ErrInvalid}, {size - 3, 3, 3, nil}} {
			p := make([]byte, tc.n)
			if n, err := r.ReadAt(p, tc.off); int64(n) != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v, want %d, %v", tc.n, tc.off, n, err, tc.want, tc.err)
			}
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				p := make([]byte, 1000)
				off := rand.Int64N(size - 1000)
				if _, err := r.ReadAt(p, off); err != nil || !bytes.Equal(p, b.content[off:off+1000]) {
					t.Errorf("ReadAt(%d): %v, or other bytes", off, err)
				}
			})
		}
		wg.Wait()
		if r.Err() != nil {
			t.Errorf("Err gives %v", r.Err())
		}
		r.Close()
		if !c.Scheduler().Idle() {
			t.Error("a slot was not given back")
		}
		if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) || r.Err() == nil {
			t.Errorf("after Close: %v", err)
		}
	})
}
