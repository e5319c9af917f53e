// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcText is a CRC32C as Google writes it.
func crcText(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// crcOf returns the CRC32C of the whole object, which an answer with any part of it tells.
// https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash
func crcOf(h http.Header) (sum uint32, ok bool) {
	for _, value := range h.Values("X-Goog-Hash") {
		for hash := range strings.SplitSeq(value, ",") {
			text, isCRC := strings.CutPrefix(strings.TrimSpace(hash), "crc32c=")
			if raw, err := base64.StdEncoding.DecodeString(text); isCRC && err == nil && len(raw) == 4 {
				return binary.BigEndian.Uint32(raw), true
			}
		}
	}
	return 0, false
}

// A checked body is a whole object. Its last bytes come only if the sum is right: who reads
// as many bytes as there are sees no error behind them.
type checked struct {
	io.ReadCloser

	left      int64
	sum, want uint32
	err       error
}

// Read implements io.Reader.
//
// Errors: backends.ErrCorrupt.
func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p)
	c.sum = crc32.Update(c.sum, castagnoli, p[:n])
	if c.left -= int64(n); c.left == 0 && c.sum != c.want {
		c.err = fmt.Errorf("%w: its CRC32C is %s, not %s", backends.ErrCorrupt, crcText(c.sum), crcText(c.want))
		return 0, c.err
	}
	return n, err
}
