// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends/vsif"
)

// What is read and written of a squashfs 4.0: see package vsif.
const (
	superSize     = 96
	metadataSize  = 8 << 10
	rawMetadata   = 1 << 15 // in the size of a metadata block
	rawBlock      = 1 << 24 // in the size of a data block
	headerEntries = 256     // of a directory's header at most
	none          = 1<<32 - 1
	noTable       = 1<<64 - 1
	maxTable      = 1 << 30

	typeDirectory = 1
	typeFile      = 2
	typeSymlink   = 3
	typeFIFO      = 6
	extended      = 7 // what is added for those with more fields

	sizesName = "oci-sif.json"
)

// A source is the image that is read.
type source struct {
	r     io.ReaderAt
	head  []byte // of the SIF
	base  int64  // of the partition
	super []byte

	// The tables without the headers of their blocks.
	inodes, directories []byte
	ids, xattrs         section
}

// A section is what is copied as it is: blocks, and positions of some of them from the
// beginning of the section. As the blocks are not compressed, what points into them
// stays right.
type section struct {
	text   []byte
	starts []uint64
	count  uint64 // what the second word of the section's table says
}

func openSource(r io.ReaderAt) (*source, error) {
	if _, err := vsif.ReadSource(r); err != nil {
		return nil, err
	}
	s := &source{r: r, head: make([]byte, sifHeader+sifDescriptors*sifDescriptor), super: make([]byte, superSize)}
	if _, err := r.ReadAt(s.head, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	for i := range sifDescriptors {
		if d := s.descriptor(s.head, i); d[4] != 0 && le.Uint32(d) == dataPartition {
			s.base = int64(le.Uint64(d[17:])) //nolint:gosec // an offset that is none is an error
		}
	}
	if _, err := r.ReadAt(s.super, s.base); err != nil {
		return nil, err
	}
	if string(s.super[:4]) != "hsqs" || le.Uint32(s.super[12:]) != vsif.BlockSize || le.Uint32(s.super[16:]) != 0 {
		return nil, fmt.Errorf("%w: another file system", errSource)
	}
	return s, s.readTables()
}

// field returns a position out of the superblock.
func (s *source) field(offset int) uint64 { return binary.LittleEndian.Uint64(s.super[offset:]) }

func (s *source) readTables() (err error) {
	end, ids, xattrs, inodes, directories, fragments := s.field(40), s.field(48), s.field(56), s.field(64), s.field(72), s.field(80)
	if s.inodes, err = s.table(inodes, directories); err != nil {
		return err
	}
	if s.directories, err = s.table(directories, fragments); err != nil {
		return err
	}
	if s.ids.text, err = s.bytes(fragments, ids); err != nil {
		return err
	}
	s.ids.starts = []uint64{0} // One id: one block.
	if binary.LittleEndian.Uint16(s.super[26:]) != 1 {
		return fmt.Errorf("%w: files of several owners", errSource)
	}
	if xattrs == noTable {
		return nil
	}
	table, err := s.bytes(xattrs, end)
	if err != nil || len(table) < 16 {
		return fmt.Errorf("%w: its attributes are cut off: %v", errSource, err)
	}
	names := binary.LittleEndian.Uint64(table)
	s.xattrs.count = binary.LittleEndian.Uint64(table[8:])
	for rest := table[16:]; len(rest) >= 8; rest = rest[8:] {
		s.xattrs.starts = append(s.xattrs.starts, binary.LittleEndian.Uint64(rest)-names)
	}
	s.xattrs.text, err = s.bytes(names, xattrs)
	return err
}

// bytes returns a range of the partition.
func (s *source) bytes(from, to uint64) ([]byte, error) {
	if from > to || to-from > maxTable || from > 1<<60 {
		return nil, fmt.Errorf("%w: a table from %d to %d", errSource, from, to)
	}
	b := make([]byte, to-from)
	_, err := s.r.ReadAt(b, s.base+int64(from)) //nolint:gosec // at most 1<<60
	return b, err
}

// table returns what the metadata blocks of a range hold.
func (s *source) table(from, to uint64) ([]byte, error) {
	b, err := s.bytes(from, to)
	if err != nil {
		return nil, err
	}
	out := b[:0] // what is read is always ahead of what is written
	for len(b) > 0 {
		if len(b) < 2 {
			return nil, fmt.Errorf("%w: a table is cut off", errSource)
		}
		size := binary.LittleEndian.Uint16(b)
		n := int(size &^ rawMetadata)
		if size&rawMetadata == 0 || n > len(b)-2 || n > metadataSize || n < metadataSize && n != len(b)-2 {
			return nil, fmt.Errorf("%w: a table with compressed blocks", errSource)
		}
		out = append(out, b[2:2+n]...)
		b = b[2+n:]
	}
	return out, nil
}

// position returns where in a table something is that stands at an offset of a block.
func position(block, offset int64) int64 { return block/(metadataSize+2)*metadataSize + offset }

// A cursor reads fields. bad is set if there were too few bytes.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int64) []byte {
	if n < 0 || n > int64(len(c.b)) {
		c.bad, c.b = true, nil
		return make([]byte, min(max(n, 0), 8))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u16() int64  { return int64(binary.LittleEndian.Uint16(c.bytes(2))) }
func (c *cursor) u32() int64  { return int64(binary.LittleEndian.Uint32(c.bytes(4))) }
func (c *cursor) u64() uint64 { return binary.LittleEndian.Uint64(c.bytes(8)) }

// An inode is one of the source. Its slices are parts of the table.
type inode struct {
	kind            int // without extended
	mode            int64
	modTime, number int64
	links, xattr    int64
	start, size     int64  // of a file: where it is in the partition
	words           []byte // the sizes of its blocks
	target          []byte // of a symbolic link
	listing, length int64  // of a directory: where it is in the table, and how long
	parent          int64
}

// each calls fn for all inodes in the order of the table, in which what a directory
// lists stands before it.
func (s *source) each(fn func(*inode) error) error {
	c := &cursor{b: s.inodes}
	for len(c.b) > 0 {
		n := readInode(c)
		if c.bad {
			return fmt.Errorf("%w: its inodes are damaged", errSource)
		}
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

func readInode(c *cursor) *inode {
	kind := c.u16()
	n := &inode{kind: int(kind), mode: c.u16(), xattr: none, links: 1}
	c.bytes(4) // the owner
	n.modTime, n.number = c.u32(), c.u32()
	switch kind {
	case typeDirectory:
		block := c.u32()
		n.links, n.length = c.u32(), c.u16()
		n.listing, n.parent = position(block, c.u16()), c.u32()
	case typeDirectory + extended:
		n.readDirectory(c)
	case typeFile:
		n.start = c.u32()
		c.bytes(8) // no fragment
		n.size = c.u32()
		n.words = c.bytes(4 * blocksOf(n.size, vsif.BlockSize))
	case typeFile + extended:
		n.start, n.size = int64(c.u64()&(1<<62-1)), int64(c.u64()&(1<<50-1)) //nolint:gosec // cut
		c.bytes(8)                                                           // the bytes of its holes
		n.links = c.u32()
		c.bytes(8) // no fragment
		n.xattr = c.u32()
		n.words = c.bytes(4 * blocksOf(n.size, vsif.BlockSize))
	case typeSymlink, typeSymlink + extended, typeFIFO, typeFIFO + extended:
		n.links = c.u32()
		if kind == typeSymlink || kind == typeSymlink+extended {
			n.target = c.bytes(c.u32())
		}
		if kind > extended {
			n.xattr = c.u32()
		}
	default:
		c.bad = true
	}
	if n.kind > extended {
		n.kind -= extended
	}
	return n
}

func (n *inode) readDirectory(c *cursor) {
	n.links, n.length = c.u32(), c.u32()
	block := c.u32()
	n.parent = c.u32()
	index := c.u16()
	n.listing, n.xattr = position(block, c.u16()), c.u32()
	for range index {
		c.bytes(8)
		c.bytes(c.u32() + 1)
	}
}

// blocksOf returns how many blocks a file of a size has.
func blocksOf(size, block int64) int64 { return (size + block - 1) / block }

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
