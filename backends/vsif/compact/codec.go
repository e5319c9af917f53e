// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"bytes"
	"io/fs"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/sregfs/sregfs/backends"
)

// A Codec is how blocks are compressed.
type Codec string

// The codecs: each kernel reads gzip. Zstandard needs Linux 4.14, and is read several
// times faster.
const (
	Gzip Codec = "gzip"
	Zstd Codec = "zstd"
)

// ParseCodec returns the codec of a name.
//
// Errors: [fs.ErrInvalid] if there is none.
func ParseCodec(name string) (Codec, error) {
	switch c := Codec(name); c {
	case Gzip, Zstd:
		return c, nil
	}
	return "", backends.Saying(fs.ErrInvalid, "compression %q: use %q or %q", name, Gzip, Zstd)
}

// id is that of the superblock.
func (c Codec) id() uint16 {
	if c == Zstd {
		return 6
	}
	return 1
}

// gzipLevel is where more time makes it hardly smaller.
const gzipLevel = 8

// block returns the size in bytes of a file's blocks before they are compressed. For
// gzip, which looks back by 32 KiB, larger ones do not make it smaller.
func (c Codec) block() int64 {
	if c == Zstd {
		return 256 << 10
	}
	return 128 << 10
}

// encoder returns a function that appends src to dst, compressed. It is not safe for
// concurrent use. What it makes of a block does not depend on those before.
func (c Codec) encoder() (func(dst, src []byte) []byte, error) {
	switch c {
	case Gzip:
		w, err := zlib.NewWriterLevel(nil, gzipLevel)
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) []byte {
			b := bytes.NewBuffer(dst)
			w.Reset(b)
			_, _ = w.Write(src) // to memory
			_ = w.Close()
			return b.Bytes()
		}, nil
	case Zstd:
		// The window is that for which the kernel has room.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(int(c.block())), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) []byte { return w.EncodeAll(src, dst) }, nil
	}
	_, err := ParseCodec(string(c))
	return nil, err
}
