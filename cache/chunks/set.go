// SPDX-License-Identifier: Apache-2.0

// Package chunks says which chunks of a blob are on the disk: a [Set] in memory, a
// [Map] in a file beside the blob that survives a power cut, and a [Recent] that
// survives the end of the process only. It knows nothing of registries.
package chunks

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

const (
	// Size is the unit in which presence is recorded: a 10 GB image has a map
	// of 5 kB, and kill -9 costs less than that of each request under way.
	Size = 256 << 10
	// pageWords is how much of a set is allocated at once: a page is 512 bytes, and
	// tells of 1 GiB.
	pageWords = 64
	pageBits  = pageWords * 64
)

// Of returns the number of the chunk that holds the byte at off.
func Of(off int64) int64 { return off / Size }

// Count returns how many chunks size bytes have.
func Count(size int64) int64 { return (size + Size - 1) / Size }

// A Set is a set of chunks. Bits may be set and read by many goroutines at
// once without a lock. It takes memory for the pages that have a bit, as any
// registry may say that an image is very large.
type Set []atomic.Pointer[bitPage]

type bitPage [pageWords]atomic.Uint64

// NewSet returns an empty set for a blob of n chunks.
func NewSet(n int64) Set { return make(Set, (n+pageBits-1)/pageBits) }

// word returns the word that holds bit i; nil if it was never set.
func (m Set) word(i int64) *atomic.Uint64 {
	p := m[i/pageBits].Load()
	if p == nil {
		return nil
	}
	return &p[i%pageBits/64]
}

// made is word, which it makes if need be.
func (m Set) made(i int64) *atomic.Uint64 {
	for at := &m[i/pageBits]; at.Load() == nil; {
		at.CompareAndSwap(nil, new(bitPage))
	}
	return m.word(i)
}

// Has reports whether chunk i is in the set.
func (m Set) Has(i int64) bool { return m.load(i)&(1<<(i%64)) != 0 }

// Add puts chunk i into the set, and reports whether it was not in it before.
func (m Set) Add(i int64) (added bool) { return m.made(i).Or(1<<(i%64))&(1<<(i%64)) == 0 }

// load returns the word that holds bit i.
func (m Set) load(i int64) uint64 {
	if w := m.word(i); w != nil {
		return w.Load()
	}
	return 0
}

// Remove takes chunk i out of the set.
func (m Set) Remove(i int64) {
	if w := m.word(i); w != nil {
		w.And(^uint64(1 << (i % 64)))
	}
}

// All reports whether every chunk of [from, to) is in the set.
func (m Set) All(from, to int64) bool { return m.FirstMissing(from, to) == to }

// FirstMissing returns the first chunk of [from, to) that is not in the set, or to.
func (m Set) FirstMissing(from, to int64) int64 {
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
func (m Set) words(yield func(first int64, word uint64) bool) {
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

// Len returns how many chunks are in the set.
func (m Set) Len() int64 {
	n := 0
	for _, w := range m.words {
		n += bits.OnesCount64(w)
	}
	return int64(n)
}

// Merge adds the chunks of another set of the same blob.
func (m Set) Merge(o Set) {
	for i, w := range o.words {
		m.made(i).Or(w)
	}
}

// Clone returns a copy; each word is read once.
func (m Set) Clone() Set {
	c := make(Set, len(m))
	c.Merge(m)
	return c
}

// setRecord is the length in bytes of one word in a file: its number, and the word.
const setRecord = 16

// appendTo appends the words that have a bit, as a map file holds them.
func (m Set) appendTo(b []byte) []byte {
	for i, w := range m.words {
		b = binary.LittleEndian.AppendUint64(b, uint64(i/64))
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// parseSet reads what appendTo wrote for n chunks. Bits beyond n are dropped.
func parseSet(b []byte, n int64) (Set, bool) {
	m := NewSet(n)
	for ; len(b) >= setRecord; b = b[setRecord:] {
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

// Bytes returns how many bytes the chunks in the set hold of a blob of size bytes.
func (m Set) Bytes(size int64) int64 {
	n := m.Len() * Size
	if last := Count(size) - 1; last >= 0 && m.Has(last) {
		n -= (last+1)*Size - size
	}
	return n
}
