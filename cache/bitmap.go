// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// chunkSize is the unit in which presence is recorded: a 10 GB image has a map
// of 5 kB, and kill -9 costs less than that of each request under way.
const chunkSize = 256 << 10

// chunkOf returns the number of the chunk that holds the byte at off.
func chunkOf(off int64) int64 { return off / chunkSize }

// chunks returns how many chunks size bytes have.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// A bitmap is a set of chunks. Bits may be set and read by many goroutines at
// once without a lock.
type bitmap []atomic.Uint64

func newBitmap(n int64) bitmap { return make(bitmap, (n+63)/64) }

func (m bitmap) has(i int64) bool { return m[i/64].Load()&(1<<(i%64)) != 0 }
func (m bitmap) set(i int64)      { m[i/64].Or(1 << (i % 64)) }
func (m bitmap) clear(i int64)    { m[i/64].And(^uint64(1 << (i % 64))) }

// add is set, and reports whether the chunk was not in the set before.
func (m bitmap) add(i int64) bool { return m[i/64].Or(1<<(i%64))&(1<<(i%64)) == 0 }

// all reports whether every chunk of [from, to) is in the set.
func (m bitmap) all(from, to int64) bool { return m.firstMissing(from, to) == to }

// firstMissing returns the first chunk of [from, to) that is not in the set, or to.
func (m bitmap) firstMissing(from, to int64) int64 {
	for i := from; i < to; {
		missing := ^m[i/64].Load() >> (i % 64)
		if missing != 0 {
			return min(i+int64(bits.TrailingZeros64(missing)), to)
		}
		i += 64 - i%64
	}
	return to
}

// count returns how many chunks are in the set.
func (m bitmap) count() int64 {
	var n int
	for i := range m {
		n += bits.OnesCount64(m[i].Load())
	}
	return int64(n)
}

// clone returns a copy; each word is read once.
func (m bitmap) clone() bitmap {
	c := make(bitmap, len(m))
	for i := range m {
		c[i].Store(m[i].Load())
	}
	return c
}

// appendTo appends the bits in the form of a map file.
func (m bitmap) appendTo(b []byte) []byte {
	for i := range m {
		b = binary.LittleEndian.AppendUint64(b, m[i].Load())
	}
	return b
}

// parseBitmap reads what appendTo wrote for n chunks. Bits beyond n are dropped.
func parseBitmap(b []byte, n int64) (bitmap, bool) {
	if int64(len(b)) != (n+63)/64*8 {
		return nil, false
	}
	m := newBitmap(n)
	for i := range m {
		m[i].Store(binary.LittleEndian.Uint64(b[8*i:]))
	}
	if rest := n % 64; rest != 0 {
		m[len(m)-1].And(1<<rest - 1)
	}
	return m, true
}

// present returns how many bytes the chunks in the set hold of a blob of size bytes.
func (m bitmap) present(size int64) int64 {
	n := m.count() * chunkSize
	if last := chunks(size) - 1; last >= 0 && m.has(last) {
		n -= (last+1)*chunkSize - size
	}
	return n
}
