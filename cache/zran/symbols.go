// SPDX-License-Identifier: Apache-2.0

package zran

import (
	"encoding/binary"
	"math/bits"
)

const (
	maxLength = 258 // bytes that one symbol can make
	// Input of which symbols are decoded without asking whether there is more.
	// One takes at most 15+5 bits for the length and 15+13 for the distance.
	manyInput = 8
)

// A coded is what a length or distance symbol says: a base, and how many bits follow to be added.
type coded struct {
	base  uint16
	extra uint8
}

// lengths and distances are the tables of RFC 1951, section 3.2.5.
var lengths, distances = func() (l [maxNumLit - endBlockMarker - 1]coded, d [maxNumDist]coded) {
	base := 3
	for i := range l {
		extra := max(0, i/4-1)
		l[i] = coded{uint16(base), uint8(extra)}
		base += 1 << extra
	}
	l[len(l)-1] = coded{maxLength, 0}
	base = 1
	for i := range d {
		extra := max(0, i/2-1)
		d[i] = coded{uint16(base), uint8(extra)}
		base += 1 << extra
	}
	return l, d
}()

// manySymbols decodes symbols of a block as long as there is input for a whole one in
// the buffer, and room for what it may make. It says whether the end of the block was
// reached. All else, also what is wrong with a symbol, it leaves to huffmanBlock.
//
// It does the same thing as huffmanBlock, and differs in that it keeps 56 bits at hand
// instead of as few as possible; those that are not used it gives back.
func (f *decompressor) manySymbols() (end bool) {
	hist, wr := f.dict.hist, f.dict.wrPos
	if f.r.Buffered() < manyInput || wr+maxLength > len(hist) {
		return false
	}
	in, _ := f.r.Peek(f.r.Buffered()) // What is buffered can be had.
	b, nb, pos := f.b, f.nb, 0
	for !end && pos+manyInput <= len(in) && wr+maxLength <= len(hist) {
		b |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
		pos += int(63-nb) >> 3
		nb |= 56

		v, n := f.hl.symbol(b)
		if v < endBlockMarker && n > 0 {
			hist[wr] = byte(v)
			wr++
			b >>= n & 63
			nb -= n
			continue
		}
		if v == endBlockMarker {
			end = true
			b >>= n & 63
			nb -= n
			break
		}
		length, dist, used := f.reference(b, v, n)
		if used == 0 || dist > wr && !f.dict.full {
			break
		}
		b >>= used & 63
		nb -= used
		if src := wr - dist; src < 0 {
			f.dict.wrPos = wr
			f.dict.writeCopy(dist, length)
		} else {
			for at := wr; at < wr+length; {
				at += copy(hist[at:wr+length], hist[src:at])
			}
		}
		wr += length
	}
	back := min(pos, int(nb>>3)) // Some may have been there before: huffSym takes as many bits as the end of a block has.
	pos -= back
	nb -= uint(back) * 8
	f.b, f.nb, f.dict.wrPos = b&(1<<nb-1), nb, wr
	f.roffset += int64(pos)
	f.r.Discard(pos) //nolint:errcheck // what is buffered can be discarded
	return end
}

// symbol returns the symbol at the beginning of b, and how many bits it takes: 0 for none.
func (h *huffmanDecoder) symbol(b uint64) (v, n uint) {
	chunk := h.chunks[b&(huffmanNumChunks-1)]
	if n = uint(chunk & huffmanCountMask); n > huffmanChunkBits {
		chunk = h.links[chunk>>huffmanValueShift][(b>>huffmanChunkBits)&uint64(h.linkMask)]
		n = uint(chunk & huffmanCountMask)
	}
	return uint(chunk >> huffmanValueShift), n
}

// reference decodes what to copy: v is the length's symbol, of n bits, at the beginning
// of b. It returns how many bits it took in all: 0 if that is nothing.
func (f *decompressor) reference(b uint64, v, n uint) (length, dist int, used uint) {
	v -= endBlockMarker + 1
	if n == 0 || v >= uint(len(lengths)) {
		return 0, 0, 0
	}
	l := lengths[v]
	b >>= n
	length = int(l.base) + int(b&(1<<l.extra-1))
	b >>= l.extra
	used = n + uint(l.extra)

	v, n = uint(bits.Reverse8(uint8(b&0x1F<<3))), 5
	if f.hd != nil {
		v, n = f.hd.symbol(b)
	}
	if n == 0 || v >= uint(len(distances)) {
		return 0, 0, 0
	}
	d := distances[v]
	b >>= n
	dist = int(d.base) + int(b&(1<<d.extra-1))
	return length, dist, used + n + uint(d.extra)
}
