// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// The compressions of squashfs. LZMA is of before version 4, and LZO has no
// reader in Go that is kept up.
const (
	codecGzip = 1
	codecLZMA = 2
	codecLZO  = 3
	codecXZ   = 4
	codecLZ4  = 5
	codecZstd = 6
)

func checkCodec(codec uint16) error {
	switch codec {
	case codecGzip, codecXZ, codecLZ4, codecZstd:
		return nil
	case codecLZMA, codecLZO:
		return fmt.Errorf("%w: squashfs compressed with LZMA or LZO", errors.ErrUnsupported)
	}
	return fmt.Errorf("%w: compression %d", errSquash, codec)
}

// unpack returns what src unpacks to, which may be limit bytes at most.
func unpack(codec uint16, src []byte, limit int) ([]byte, error) {
	var out []byte
	var err error
	switch codec {
	case codecGzip:
		var r io.ReadCloser
		if r, err = zlib.NewReader(bytes.NewReader(src)); err == nil {
			out, err = readLimited(r, limit)
		}
	case codecXZ:
		var r *xz.Reader
		// No dictionary is larger than a block, and none need be allocated that is.
		if r, err = xz.NewReader(bytes.NewReader(src), 1<<20); err == nil {
			out, err = readLimited(r, limit)
		}
	case codecLZ4:
		out = make([]byte, limit)
		var n int
		n, err = lz4.UncompressBlock(src, out)
		out = out[:max(n, 0)]
	case codecZstd:
		out, err = unpackZstd(src, limit)
	default:
		err = checkCodec(codec)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errSquash, err)
	}
	return out, nil
}

func readLimited(r io.Reader, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(out) > limit {
		err = fmt.Errorf("a block of more than %d bytes", limit)
	}
	return out, err
}

func unpackZstd(src []byte, limit int) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.DecodeAll(src, nil)
}
