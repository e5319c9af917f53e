// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"time"
)

// A Header says when a collection was listed, and with what result. It is written
// after the entries: without it the listing counts as never made.
type Header struct {
	Fetched   time.Time     // zero: must be made again
	Took      time.Duration // how long the registry needed
	Count     int           // images
	Truncated bool          // there were more than we take
}

// Encode returns the header as it is stored.
func (h Header) Encode() []byte {
	b := []byte{codecVersion, 0}
	if h.Truncated {
		b[1] |= 1
	}
	var fetched int64
	if !h.Fetched.IsZero() {
		fetched = h.Fetched.UnixNano()
	}
	b = binary.AppendVarint(b, fetched)
	b = binary.AppendVarint(b, int64(h.Took))
	return binary.AppendUvarint(b, uint64(h.Count))
}

func decodeHeader(b []byte) (h Header, ok bool) {
	d := decoder{b: b}
	if d.byte() != codecVersion {
		return Header{}, false
	}
	h.Truncated = d.byte()&1 != 0
	if fetched := d.varint(); fetched != 0 {
		h.Fetched = time.Unix(0, fetched)
	}
	h.Took = time.Duration(d.varint())
	h.Count = int(d.uvarint())
	return h, !d.bad && len(d.b) == 0
}
