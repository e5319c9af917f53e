// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

const (
	// chunkSize is the unit in which presence is recorded: a 10 GB image has a map
	// of 5 kB, and kill -9 costs less than that of each request under way.
	chunkSize = 256 << 10
	// pageWords is how much of a bitmap is in one piece: a page is 512 bytes, and
	// tells of 1 GiB.
	pageWords = 64
	pageBits  = pageWords * 64
)

// chunkOf returns the number of the chunk that holds the byte at off.
func chunkOf(off int64) int64 { return off / chunkSize }

// chunks returns how many chunks size bytes have.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// A bitmap is a set of chunks. Bits may be set and read by many goroutines at
// once without a lock. It takes memory for the pages that have a bit, as any
// registry may say that an image is very large.
type bitmap []atomic.Pointer[bitPage]

type bitPage [pageWords]atomic.Uint64

func newBitmap(n int64) bitmap { return make(bitmap, (n+pageBits-1)/pageBits) }

// word returns the word that holds bit i; nil if it was never set.
func (m bitmap) word(i int64) *atomic.Uint64 {
	p := m[i/pageBits].Load()
	if p == nil {
		return nil
	}
	return &p[i%pageBits/64]
}

// made is word, which it makes if need be.
func (m bitmap) made(i int64) *atomic.Uint64 {
	for at := &m[i/pageBits]; at.Load() == nil; {
		at.CompareAndSwap(nil, new(bitPage))
	}
	return m.word(i)
}

func (m bitmap) has(i int64) bool { return m.load(i)&(1<<(i%64)) != 0 }
func (m bitmap) set(i int64)      { m.made(i).Or(1 << (i % 64)) }

// load returns the word that holds bit i.
func (m bitmap) load(i int64) uint64 {
	if w := m.word(i); w != nil {
		return w.Load()
	}
	return 0
}

func (m bitmap) clear(i int64) {
	if w := m.word(i); w != nil {
		w.And(^uint64(1 << (i % 64)))
	}
}

// add is set, and reports whether the chunk was not in the set before.
func (m bitmap) add(i int64) bool { return m.made(i).Or(1<<(i%64))&(1<<(i%64)) == 0 }

// all reports whether every chunk of [from, to) is in the set.
func (m bitmap) all(from, to int64) bool { return m.firstMissing(from, to) == to }

// firstMissing returns the first chunk of [from, to) that is not in the set, or to.
func (m bitmap) firstMissing(from, to int64) int64 {
	for i := from; i < to; {
		missing := ^m.load(i) >> (i % 64)
		if missing != 0 {
			return min(i+int64(bits.TrailingZeros64(missing)), to)
		}
		i += 64 - i%64
	}
	return to
}

// words yields those that have a bit, with the number of their first one.
func (m bitmap) words(yield func(first int64, word uint64) bool) {
	for n := range m {
		p := m[n].Load()
		if p == nil {
			continue
		}
		for i := range p {
			if w := p[i].Load(); w != 0 && !yield(int64(n)*pageBits+int64(i)*64, w) {
				return
			}
		}
	}
}

// count returns how many chunks are in the set.
func (m bitmap) count() int64 {
	n := 0
	for _, w := range m.words {
		n += bits.OnesCount64(w)
	}
	return int64(n)
}

// merge adds the chunks of another set of the same blob.
func (m bitmap) merge(o bitmap) {
	for i, w := range o.words {
		m.made(i).Or(w)
	}
}

// clone returns a copy; each word is read once.
func (m bitmap) clone() bitmap {
	c := make(bitmap, len(m))
	c.merge(m)
	return c
}

// bitmapRecord is the length of one word in the form of a file: its number, and the word.
const bitmapRecord = 16

// appendTo appends the words that have a bit in the form of a map file.
func (m bitmap) appendTo(b []byte) []byte {
	for i, w := range m.words {
		b = binary.LittleEndian.AppendUint64(b, uint64(i/64))
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// parseBitmap reads what appendTo wrote for n chunks. Bits beyond n are dropped.
func parseBitmap(b []byte, n int64) (bitmap, bool) {
	m := newBitmap(n)
	for ; len(b) >= bitmapRecord; b = b[bitmapRecord:] {
		number, w := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if number >= uint64(n+63)/64 {
			return nil, false
		}
		first := int64(number) * 64
		if rest := n - first; rest < 64 {
			w &= 1<<rest - 1
		}
		m.made(first).Or(w)
	}
	return m, len(b) == 0
}

// present returns how many bytes the chunks in the set hold of a blob of size bytes.
func (m bitmap) present(size int64) int64 {
	n := m.count() * chunkSize
	if last := chunks(size) - 1; last >= 0 && m.has(last) {
		n -= (last+1)*chunkSize - size
	}
	return n
}
