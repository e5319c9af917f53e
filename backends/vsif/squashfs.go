// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// The tables of a squashfs 4.0, as the kernel reads it (fs/squashfs/squashfs_fs.h). None
// is compressed: their bytes and positions depend on no encoder.
const (
	// BlockSize is the size in bytes of the blocks of a file. Larger ones are slower to
	// read through the kernel, and smaller ones do not mount where pages have 64 KiB.
	BlockSize = 64 << 10

	blockLog      = 16
	superSize     = 96
	metadataSize  = 8 << 10
	uncompressed  = 1 << 24 // in the size of a data block
	rawMetadata   = 1 << 15 // in the size of a metadata block
	noFragment    = math.MaxUint32
	noXattr       = math.MaxUint32
	noTable       = math.MaxUint64
	headerEntries = 256 // of a directory's header at most
	indexEvery    = metadataSize

	compressorGzip = 1
	// Inodes, data, fragments, xattrs and ids are uncompressed, and no file has a fragment.
	superFlags = 0x1 | 0x2 | 0x8 | 0x10 | 0x100 | 0x800
)

// The types of inodes: those with more fields are seven further on.
const (
	typeDirectory = 1
	typeFile      = 2
	typeSymlink   = 3
	typeFIFO      = 6
	extended      = 7
)

// A ref is where something stands in a table of metadata blocks: the block's offset from
// the begin of the table, and 16 bits for that in the block.
type ref uint64

// A table is the content of a table of metadata blocks, without their headers.
type table struct{ data []byte }

// at returns the ref of the next byte.
func (t *table) at() ref {
	n := len(t.data)
	return ref(n/metadataSize*(metadataSize+2))<<16 | ref(n%metadataSize) //nolint:gosec // not negative
}

func (t *table) u16(v int)     { t.data = binary.LittleEndian.AppendUint16(t.data, uint16(v)) } //nolint:gosec // the caller's range
func (t *table) u32(v int64)   { t.data = binary.LittleEndian.AppendUint32(t.data, uint32(v)) } //nolint:gosec // the caller's range
func (t *table) u64(v uint64)  { t.data = binary.LittleEndian.AppendUint64(t.data, v) }
func (t *table) text(s string) { t.data = append(t.data, s...) }

// blocks appends the table to out as metadata blocks, and returns where each begins.
func (t *table) blocks(out []byte, base int64) (_ []byte, starts []uint64) {
	for rest := t.data; len(rest) > 0; {
		n := min(len(rest), metadataSize)
		starts = append(starts, uint64(base)+uint64(len(out)))             //nolint:gosec // not negative
		out = binary.LittleEndian.AppendUint16(out, uint16(n|rawMetadata)) //nolint:gosec // 14 bits
		out = append(out, rest[:n]...)
		rest = rest[n:]
	}
	return out, starts
}

// A writer makes the tables of one file system.
type writer struct {
	where       func(*inode) int64 // of a file's bytes, from the begin of the partition
	inodes      table
	directories table
	xattrs      table            // names and values
	xattrIDs    table            // one for each set of attributes
	sets        map[string]int64 // by their bytes
	count       uint32           // of inodes
	err         error
}

// number gives an inode and those below it their numbers.
func (w *writer) number(n *node) {
	if n.inode.number == 0 {
		w.count++
		n.inode.number = w.count
	}
	for _, child := range n.sorted() {
		w.number(child)
	}
}

// add writes the inodes of a directory, children first, as their refs stand in its listing.
func (w *writer) add(n *node) {
	children := n.sorted()
	for _, child := range children {
		switch {
		case child.kind == Directory:
			w.add(child)
		case !child.written:
			w.inode(child.inode)
		}
	}
	w.directory(n, children)
}

// head writes what all inodes begin with.
func (w *writer) head(in *inode, kind int) {
	in.at, in.written = w.inodes.at(), true
	w.inodes.u16(kind)
	w.inodes.u16(int(in.mode))
	w.inodes.u16(0) // the owner root, the only one in the table of ids
	w.inodes.u16(0)
	w.inodes.u32(int64(in.modTime))
	w.inodes.u32(int64(in.number))
}

func (w *writer) inode(in *inode) {
	set := w.xattrSet(in.xattrs)
	kind, more := kindOf(in), 0
	if set != noXattr {
		more = extended
	}
	switch kind {
	case typeFile:
		w.file(in, set)
		return
	case typeSymlink:
		w.head(in, kind+more)
		w.inodes.u32(int64(in.links))
		w.inodes.u32(int64(len(in.target)))
		w.inodes.text(in.target)
	default:
		w.head(in, kind+more)
		w.inodes.u32(int64(in.links))
	}
	if more > 0 {
		w.inodes.u32(set)
	}
}

// kindOf returns the type of an inode in listings.
func kindOf(in *inode) int {
	return map[Kind]int{File: typeFile, Directory: typeDirectory, Symlink: typeSymlink, FIFO: typeFIFO}[in.kind]
}

// file writes the inode of a regular file: its blocks stand one after the other.
func (w *writer) file(in *inode, set int64) {
	start := int64(0)
	if in.size > 0 {
		start = w.where(in)
	}
	if set == noXattr && in.links == 1 && start <= math.MaxUint32 && in.size <= math.MaxUint32 && !in.sparse {
		w.head(in, typeFile)
		w.inodes.u32(start)
		w.inodes.u32(noFragment)
		w.inodes.u32(0)
		w.inodes.u32(in.size)
	} else {
		w.head(in, typeFile+extended)
		w.inodes.u64(uint64(start))   //nolint:gosec // not negative
		w.inodes.u64(uint64(in.size)) //nolint:gosec // as above
		w.inodes.u64(uint64(in.holes()))
		w.inodes.u32(int64(in.links))
		w.inodes.u32(noFragment)
		w.inodes.u32(0)
		w.inodes.u32(set)
	}
	for i, n := 0, blocksOf(in.size); i < n; i++ {
		w.inodes.u32(in.block(i))
	}
}

// blocksOf returns how many blocks a file of a size has.
func blocksOf(size int64) int { return int((size + BlockSize - 1) / BlockSize) }

// block returns the entry of one block: its size, or 0 for a hole.
func (in *inode) block(i int) int64 {
	if in.sparse && !hasBlock(in.blocks, i) {
		return 0
	}
	return min(in.size-int64(i)*BlockSize, BlockSize) | uncompressed
}

func hasBlock(bits []byte, i int) bool { return i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0 }

// stored returns how many bytes of a file there are, without its holes.
func (in *inode) stored() int64 {
	if !in.sparse {
		return in.size
	}
	var sum int64
	for i, n := 0, blocksOf(in.size); i < n; i++ {
		sum += in.block(i) &^ uncompressed
	}
	return sum
}

func (in *inode) holes() int64 { return in.size - in.stored() }

// directory writes a directory's listing and its inode.
func (w *writer) directory(n *node, children []*node) {
	begin := len(w.directories.data)
	at := w.directories.at()
	index := w.listing(children)
	size := int64(len(w.directories.data)-begin) + 3 // "." and ".." in the kernel's count
	nlink, parent := int64(2), w.count+1             // whose parent is none
	for _, child := range children {
		if child.kind == Directory {
			nlink++
		}
	}
	if n.parent != nil {
		parent = n.parent.number
	}
	set := w.xattrSet(n.xattrs)
	if set == noXattr && len(index) == 0 && size <= math.MaxUint16 {
		w.head(n.inode, typeDirectory)
		w.inodes.u32(int64(at >> 16)) //nolint:gosec // as in all tables here
		w.inodes.u32(nlink)
		w.inodes.u16(int(size))
		w.inodes.u16(int(at & 0xffff)) //nolint:gosec // 16 bits
		w.inodes.u32(int64(parent))
		return
	}
	if len(index) > math.MaxUint16 {
		w.err = fmt.Errorf("%w: a directory of %d files", ErrLayer, len(children))
		return
	}
	w.head(n.inode, typeDirectory+extended)
	w.inodes.u32(nlink)
	w.inodes.u32(size)
	w.inodes.u32(int64(at >> 16)) //nolint:gosec // as in all tables here
	w.inodes.u32(int64(parent))
	w.inodes.u16(len(index))
	w.inodes.u16(int(at & 0xffff)) //nolint:gosec // 16 bits
	w.inodes.u32(set)
	for _, i := range index {
		w.inodes.u32(i.offset)
		w.inodes.u32(i.block)
		w.inodes.u32(int64(len(i.name) - 1))
		w.inodes.text(i.name)
	}
}

// An indexEntry says where in a long listing names from one on stand.
type indexEntry struct {
	offset int64 // of a header, from the begin of the listing
	block  int64 // that it is in, from the begin of the table
	name   string
}

// listing writes the names of a directory. A header is for names whose inodes stand in
// one metadata block, and have numbers within 16 bits of each other.
func (w *writer) listing(children []*node) (index []indexEntry) {
	begin := len(w.directories.data)
	last := begin / metadataSize
	for len(children) > 0 {
		first := children[0]
		n := 1
		for n < len(children) && n < headerEntries && fits(first.inode, children[n].inode) {
			n++
		}
		if block := len(w.directories.data) / metadataSize; block != last {
			last = block
			index = append(index, indexEntry{int64(len(w.directories.data) - begin), int64(w.directories.at() >> 16), first.name}) //nolint:gosec // as in all tables here
		}
		w.directories.u32(int64(n - 1))
		w.directories.u32(int64(first.at >> 16)) //nolint:gosec // as above
		w.directories.u32(int64(first.number))
		for _, child := range children[:n] {
			w.directories.u16(int(child.at & 0xffff)) //nolint:gosec // 16 bits
			w.directories.u16(int(int64(child.number) - int64(first.number)))
			w.directories.u16(kindOf(child.inode))
			w.directories.u16(len(child.name) - 1)
			w.directories.text(child.name)
		}
		children = children[n:]
	}
	return index
}

func fits(first, other *inode) bool {
	delta := int64(other.number) - int64(first.number)
	return first.at>>16 == other.at>>16 && delta >= math.MinInt16 && delta <= math.MaxInt16
}

// xattrSet returns the id of a set of attributes, which is written once.
func (w *writer) xattrSet(all []Xattr) int64 {
	if len(all) == 0 {
		return noXattr
	}
	var set table
	size := 0
	for _, x := range all {
		set.u16(0) // the namespace "user."
		set.u16(len(x.Name))
		set.text(x.Name)
		set.u32(int64(len(x.Value)))
		set.text(x.Value)
		size += len(userPrefix) + len(x.Name) + 1
	}
	if id, ok := w.sets[string(set.data)]; ok {
		return id
	}
	id := int64(len(w.sets))
	w.sets[string(set.data)] = id
	w.xattrIDs.u64(uint64(w.xattrs.at()))
	w.xattrIDs.u32(int64(len(all)))
	w.xattrIDs.u32(int64(size))
	w.xattrs.data = append(w.xattrs.data, set.data...)
	return id
}

// tables writes what stands behind the data of a tree's files: they begin at a position of
// the partition. The superblock, which stands before all, comes back with them.
func (w *writer) tables(root *node, base int64) (super, tables []byte, err error) {
	w.sets = make(map[string]int64)
	w.number(root)
	w.add(root)
	if w.err != nil {
		return nil, nil, w.err
	}
	at := func() uint64 { return uint64(base) + uint64(len(tables)) } //nolint:gosec // not negative
	inodeTable := at()
	tables, _ = w.inodes.blocks(tables, base)
	directoryTable := at()
	tables, _ = w.directories.blocks(tables, base)
	fragmentTable := at()
	ids := table{make([]byte, 4)} // root
	tables, starts := ids.blocks(tables, base)
	idTable := at()
	tables = appendAll(tables, starts)
	xattrTable := uint64(noTable)
	if len(w.sets) > 0 {
		names := at()
		tables, _ = w.xattrs.blocks(tables, base)
		tables, starts = w.xattrIDs.blocks(tables, base)
		xattrTable = at()
		tables = appendAll(tables, []uint64{names, uint64(len(w.sets))})
		tables = appendAll(tables, starts)
	}
	var b bytes.Buffer
	for _, field := range []any{
		[]byte("hsqs"), w.count, uint32(0), uint32(BlockSize), uint32(0),
		uint16(compressorGzip), uint16(blockLog), uint16(superFlags), uint16(1), uint16(4), uint16(0),
		uint64(root.at), at(), idTable, xattrTable, inodeTable, directoryTable, fragmentTable, uint64(noTable),
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			return nil, nil, err
		}
	}
	return b.Bytes(), tables, nil
}

func appendAll(b []byte, all []uint64) []byte {
	for _, v := range all {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
