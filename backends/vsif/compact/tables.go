// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// A ref is where something stands in a table: the offset of its block, and 16 bits for
// that in the block.
type ref uint64

// A table is made of metadata blocks, which are compressed when they are full.
type table struct {
	encode func(dst, src []byte) []byte
	out    []byte
	starts []int64 // of the blocks
	block  []byte  // the one that is being filled
}

func (t *table) at() ref { return ref(len(t.out))<<16 | ref(len(t.block)) }

func (t *table) write(b []byte) {
	for len(b) > 0 {
		n := min(len(b), metadataSize-len(t.block))
		t.block = append(t.block, b[:n]...)
		if b = b[n:]; len(t.block) == metadataSize {
			t.flush()
		}
	}
}

func (t *table) flush() {
	if len(t.block) == 0 {
		return
	}
	t.starts = append(t.starts, int64(len(t.out)))
	t.out = append(t.out, 0, 0)
	begin := len(t.out)
	t.out = t.encode(t.out, t.block)
	size := len(t.out) - begin
	if size >= len(t.block) {
		t.out = append(t.out[:begin], t.block...)
		size = len(t.block) | rawMetadata
	}
	binary.LittleEndian.PutUint16(t.out[begin-2:], uint16(size)) //nolint:gosec // 16 bits
	t.block = t.block[:0]
}

func (t *table) u16(v int64)  { t.write(binary.LittleEndian.AppendUint16(nil, uint16(v))) } //nolint:gosec // cut by the format
func (t *table) u32(v int64)  { t.write(binary.LittleEndian.AppendUint32(nil, uint32(v))) } //nolint:gosec // as above
func (t *table) u64(v uint64) { t.write(binary.LittleEndian.AppendUint64(nil, v)) }

// tables writes the tables anew, with what data notes.
type tables struct {
	src    *source
	data   *data
	encode func(dst, src []byte) []byte

	inodes, directories table
	refs                []ref // by the number of an inode
	root                ref

	tails, starts, words int // of data, how many were used
}

// appendTo copies a section to a position: its blocks, the fields given, and where its blocks are.
func (s section) appendTo(out []byte, begin uint64, fields []uint64) []byte {
	out = append(out, s.text...)
	for _, v := range fields {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	for _, start := range s.starts {
		out = binary.LittleEndian.AppendUint64(out, begin+start)
	}
	return out
}

// build returns the superblock, and the tables that stand behind the data.
func (t *tables) build(codec Codec) (super, out []byte, err error) {
	t.inodes.encode, t.directories.encode = t.encode, t.encode
	count := binary.LittleEndian.Uint32(t.src.super[4:])
	if int64(count) > int64(len(t.src.inodes)) {
		return nil, nil, fmt.Errorf("%w: %d inodes", errSource, count)
	}
	t.refs = make([]ref, count+1)
	if err := t.src.each(t.inode); err != nil {
		return nil, nil, err
	}
	t.inodes.flush()
	t.directories.flush()

	base := uint64(t.data.end) //nolint:gosec // not negative
	at := func() uint64 { return base + uint64(len(out)) }
	inodes := at()
	out = append(out, t.inodes.out...)
	directories := at()
	out = append(out, t.directories.out...)
	fragments := table{encode: t.encode}
	for _, f := range t.data.fragments {
		fragments.u64(uint64(f.start)) //nolint:gosec // not negative
		fragments.u64(uint64(f.word))
	}
	fragments.flush()
	begin := at()
	out = append(out, fragments.out...)
	fragmentTable := at()
	for _, start := range fragments.starts {
		out = binary.LittleEndian.AppendUint64(out, begin+uint64(start)) //nolint:gosec // not negative
	}
	begin, idTable := at(), at()+uint64(len(t.src.ids.text))
	out = t.src.ids.appendTo(out, begin, nil)
	xattrTable := uint64(noTable)
	if x := t.src.xattrs; x.count > 0 {
		begin = at()
		xattrTable = begin + uint64(len(x.text))
		out = x.appendTo(out, begin, []uint64{begin, x.count})
	}
	const flags = 0x100 | 0x800 // attributes and ids are not compressed
	var b bytes.Buffer
	for _, field := range []any{
		[]byte("hsqs"), count, uint32(0), uint32(t.data.block), uint32(len(t.data.fragments)), //nolint:gosec // fewer than inodes
		codec.id(), uint16(bits.TrailingZeros64(uint64(t.data.block))), uint16(flags), uint16(1), uint16(4), uint16(0),
		uint64(t.root), at(), idTable, xattrTable, inodes, directories, fragmentTable, uint64(noTable),
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			return nil, nil, err
		}
	}
	return b.Bytes(), out, nil
}

// inode writes an inode as it was, but for where it points.
func (t *tables) inode(n *inode) error {
	if n.number <= 0 || n.number >= int64(len(t.refs)) {
		return fmt.Errorf("%w: inode %d of %d", errSource, n.number, len(t.refs)-1)
	}
	switch n.kind {
	case typeDirectory:
		return t.directory(n)
	case typeFile:
		t.file(n)
	default:
		more := int64(0)
		if n.xattr != none {
			more = extended
		}
		t.begin(n, int64(n.kind)+more)
		t.inodes.u32(n.links)
		if n.kind == typeSymlink {
			t.inodes.u32(int64(len(n.target)))
			t.inodes.write(n.target)
		}
		if more > 0 {
			t.inodes.u32(n.xattr)
		}
	}
	return nil
}

// begin writes what all inodes begin with.
func (t *tables) begin(n *inode, kind int64) {
	t.root = t.inodes.at() // The last is that of the root.
	t.refs[n.number] = t.root
	t.inodes.u16(kind)
	t.inodes.u16(n.mode)
	t.inodes.u32(0) // the only owner
	t.inodes.u32(n.modTime)
	t.inodes.u32(n.number)
}

func (t *tables) file(n *inode) {
	place, start, words, holes := tail{none, 0}, int64(0), []uint32(nil), int64(0)
	switch {
	case n.size >= t.data.block:
		start = t.data.starts[t.starts]
		words = t.data.words[t.words:][:blocksOf(n.size, t.data.block)]
		t.starts, t.words = t.starts+1, t.words+len(words)
	case n.size > 0:
		place = t.data.tails[t.tails]
		t.tails++
	}
	for i, word := range words {
		if word == 0 {
			holes += min(t.data.block, n.size-int64(i)*t.data.block)
		}
	}
	if n.xattr == none && n.links == 1 && holes == 0 && start <= math.MaxUint32 && n.size <= math.MaxUint32 {
		t.begin(n, typeFile)
		t.inodes.u32(start)
		t.inodes.u32(int64(place.fragment))
		t.inodes.u32(int64(place.offset))
		t.inodes.u32(n.size)
	} else {
		t.begin(n, typeFile+extended)
		t.inodes.u64(uint64(start))  //nolint:gosec // not negative
		t.inodes.u64(uint64(n.size)) //nolint:gosec // as above
		t.inodes.u64(uint64(holes))  //nolint:gosec // as above
		t.inodes.u32(n.links)
		t.inodes.u32(int64(place.fragment))
		t.inodes.u32(int64(place.offset))
		t.inodes.u32(n.xattr)
	}
	for _, word := range words {
		t.inodes.u32(int64(word))
	}
}
