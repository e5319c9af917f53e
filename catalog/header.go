// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"encoding/binary"
	"iter"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A header says when a collection was listed, and how that went. It is written
// after the entries: without it the listing counts as never made.
type header struct {
	fetched   time.Time     // zero: must be made again
	took      time.Duration // how long the registry needed
	count     int           // images
	truncated bool          // there were more than we take
}

func (h header) encode() []byte {
	b := []byte{codecVersion, 0}
	if h.truncated {
		b[1] |= 1
	}
	var fetched int64
	if !h.fetched.IsZero() {
		fetched = h.fetched.UnixNano()
	}
	b = binary.AppendVarint(b, fetched)
	b = binary.AppendVarint(b, int64(h.took))
	return binary.AppendUvarint(b, uint64(h.count))
}

func decodeHeader(b []byte) (h header, ok bool) {
	d := decoder{b: b}
	if d.byte() != codecVersion {
		return header{}, false
	}
	h.truncated = d.byte()&1 != 0
	if fetched := d.varint(); fetched != 0 {
		h.fetched = time.Unix(0, fetched)
	}
	h.took = time.Duration(d.varint())
	h.count = int(d.uvarint())
	return h, !d.bad && len(d.b) == 0
}

// readHeader returns the header of a collection that has been listed. An error
// of the store counts as none: everything in it can be asked for again.
func readHeader(s Store, remote, collection string) (header, bool) {
	v, err := s.Get(headerKey(remote, collection))
	if err != nil {
		return header{}, false
	}
	return decodeHeader(v)
}

// headers yields the headers of a remote.
func headers(s Store, remote string) iter.Seq2[string, header] {
	return func(yield func(string, header) bool) {
		prefix := appendPart([]byte{kindHeader}, remote)
		for kv, err := range s.Scan(prefix, nil) {
			if err != nil {
				return
			}
			collection, _, ok := cutPart(kv.Key[len(prefix):])
			h, good := decodeHeader(kv.Value)
			if ok && good && !yield(string(collection), h) {
				return
			}
		}
	}
}

// listFresh reports whether a listing need not be made again. One that takes
// long is made less often, so that it never runs all the time.
func (c *Catalog) listFresh(h header) bool {
	return c.fresh(h.fetched, max(c.opts.ListTTL, 5*h.took))
}

// readEntry returns what is stored of ref.
func readEntry(s Store, remote string, ref backends.Ref) (entry, bool) {
	v, err := s.Get(refKey(remote, ref))
	if err != nil {
		return entry{}, false
	}
	return decodeEntry(v, ref)
}
