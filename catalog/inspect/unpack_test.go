// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"compress/zlib"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// pack makes a block that unpacks to n zeros.
func pack(t *testing.T, codec uint16, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	zeros := make([]byte, n)
	var err error
	switch codec {
	case codecGzip:
		w := zlib.NewWriter(&b)
		_, err = w.Write(zeros)
		err = errors.Join(err, w.Close())
	case codecZstd:
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(nil); err == nil {
			b.Write(w.EncodeAll(zeros, nil))
			err = w.Close()
		}
	case codecLZ4:
		dst := make([]byte, lz4.CompressBlockBound(n))
		var m int
		m, err = lz4.CompressBlock(zeros, dst, nil)
		b.Write(dst[:m])
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestUnpack_bomb: a block may not grow beyond what the format allows. It runs
// alone, because it counts what is allocated.
func TestUnpack_bomb(t *testing.T) {
	for _, codec := range []uint16{codecGzip, codecZstd, codecLZ4} {
		if out, err := unpack(codec, pack(t, codec, metaBlock), metaBlock); err != nil || len(out) != metaBlock {
			t.Errorf("codec %d: %d bytes, %v", codec, len(out), err)
		}
		bomb := pack(t, codec, 64<<20)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := unpack(codec, bomb, metaBlock); !errors.Is(err, errSquash) {
			t.Errorf("codec %d: a bomb gives %v, want an error", codec, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("codec %d: %d bytes allocated for a bomb", codec, n)
		}
	}
	for _, codec := range []uint16{codecLZMA, codecLZO, 0, 7} {
		if _, err := unpack(codec, []byte("x"), metaBlock); err == nil {
			t.Errorf("codec %d is unpacked", codec)
		}
	}
}
