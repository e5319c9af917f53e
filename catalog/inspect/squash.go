// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A squashfs is read here by our own small reader: the libraries for it allocate
// what a hostile image claims (4 GiB for a symbolic link, whatever a block
// unpacks to), start goroutines whose panics nobody can catch, and cannot read
// LZ4. All that is needed is to find and read a few small files. The format is
// described at https://dr-emann.github.io/squashfs/.

const (
	superblockSize = 96
	metaBlock      = 8 << 10 // bytes that a metadata block unpacks to, at most
	maxDirectory   = 1 << 20 // bytes of a listing
	maxText        = 1 << 20 // bytes of a file
	noTable        = 1<<64 - 1
	noFragment     = 1<<32 - 1
)

var squashMagic = []byte("hsqs")

var errSquash = errors.New("damaged squashfs")

// A superblock is the first 96 bytes of a squashfs. Offsets are from its start.
type superblock struct {
	base      int64 // of the squashfs in the file
	blockSize int64
	fragments uint32
	codec     uint16
	root      uint64 // reference of the root directory's inode
	used      int64  // bytes in all
	idTable   int64
	inodes    int64
	dirs      int64
	fragTable int64 // -1 if there is none
	others    []int64
}

// readSuperblock reads the superblock at base, where size bytes belong to the
// squashfs. used may be more than size, the tables are within used.
func readSuperblock(p *pager, base, size int64) (*superblock, error) {
	if size < superblockSize {
		return nil, fmt.Errorf("%w: %d bytes", errSquash, size)
	}
	b, err := p.bytes(base, superblockSize)
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != string(squashMagic) {
		return nil, fmt.Errorf("%w: no superblock", errSquash)
	}
	le := binary.LittleEndian
	blockLog := le.Uint16(b[22:])
	if major, minor := le.Uint16(b[28:]), le.Uint16(b[30:]); major != 4 || minor != 0 {
		return nil, fmt.Errorf("%w: version %d.%d", errSquash, major, minor)
	}
	if blockLog < 12 || blockLog > 20 || le.Uint32(b[12:]) != 1<<blockLog {
		return nil, fmt.Errorf("%w: blocks of %d bytes", errSquash, le.Uint32(b[12:]))
	}
	sb := &superblock{
		base: base, blockSize: 1 << blockLog,
		fragments: le.Uint32(b[16:]), codec: le.Uint16(b[20:]), root: le.Uint64(b[32:]),
		used: int64(le.Uint64(b[40:])),
	}
	if sb.used < superblockSize {
		return nil, fmt.Errorf("%w: %d bytes used", errSquash, sb.used)
	}
	table := func(off int, optional bool) (at int64) {
		v := le.Uint64(b[off:])
		switch {
		case v == noTable && optional:
			return -1
		case v < superblockSize || v > uint64(sb.used-1):
			err = fmt.Errorf("%w: table at %d", errSquash, v)
		}
		return int64(v)
	}
	sb.idTable, sb.inodes, sb.dirs = table(48, false), table(64, false), table(72, false)
	sb.fragTable = table(80, true)
	sb.others = []int64{table(56, true), table(88, true)}
	if err == nil && sb.idTable > sb.used-8 {
		err = fmt.Errorf("%w: table at %d", errSquash, sb.idTable)
	}
	return sb, err
}

// tables returns where the first table begins.
func (sb *superblock) tables() int64 {
	first := min(sb.idTable, sb.inodes, sb.dirs)
	for _, at := range append(sb.others, sb.fragTable) {
		if at >= 0 {
			first = min(first, at)
		}
	}
	return first
}

// A tree reads files of a squashfs by their paths.
type tree struct {
	*superblock
	p      *pager
	maxDir int64              // bytes of a listing at most
	blocks map[int64]metadata // unpacked, by offset
	frag   []byte             // the last fragment block, unpacked
	fragAt int64
}

func openTree(p *pager, base, size int64) (*tree, error) {
	sb, err := readSuperblock(p, base, size)
	if err != nil {
		return nil, err
	}
	if err := checkCodec(sb.codec); err != nil {
		return nil, err
	}
	return &tree{superblock: sb, p: p, maxDir: maxDirectory, blocks: map[int64]metadata{}, fragAt: -1}, nil
}

// metadata is one unpacked block, and where the next one is.
type metadata struct {
	data []byte
	next int64
}

const maxBlocks = 64 // held at a time

func (t *tree) block(at int64) (metadata, error) {
	if m, ok := t.blocks[at]; ok {
		return m, nil
	}
	if at < superblockSize || at > t.used-2 {
		return metadata{}, fmt.Errorf("%w: block at %d", errSquash, at)
	}
	head, err := t.p.bytes(t.base+at, 2)
	if err != nil {
		return metadata{}, err
	}
	word := binary.LittleEndian.Uint16(head)
	n := int64(word &^ 0x8000)
	if n == 0 || n > metaBlock {
		return metadata{}, fmt.Errorf("%w: block of %d bytes at %d", errSquash, n, at)
	}
	data, err := t.p.bytes(t.base+at+2, n)
	if err != nil {
		return metadata{}, err
	}
	if word&0x8000 == 0 {
		if data, err = unpack(t.codec, data, metaBlock); err != nil {
			return metadata{}, err
		}
	}
	if len(data) == 0 {
		return metadata{}, fmt.Errorf("%w: empty block at %d", errSquash, at)
	}
	if len(t.blocks) == maxBlocks {
		clear(t.blocks)
	}
	m := metadata{data, at + 2 + n}
	t.blocks[at] = m
	return m, nil
}

// A cursor reads on through metadata blocks.
type cursor struct {
	t   *tree
	at  int64 // of the block
	off int   // in it
}

// next returns n bytes. The caller bounds n.
func (c *cursor) next(n int) ([]byte, error) {
	out := make([]byte, 0, n)
	for {
		m, err := c.t.block(c.at)
		if err != nil {
			return nil, err
		}
		if c.off > len(m.data) {
			return nil, fmt.Errorf("%w: byte %d of a block of %d", errSquash, c.off, len(m.data))
		}
		part := m.data[c.off:min(len(m.data), c.off+n-len(out))]
		out = append(out, part...)
		c.off += len(part)
		if len(out) == n {
			return out, nil
		}
		c.at, c.off = m.next, 0
	}
}

// An inode is a directory, a regular file, or something that is not followed.
type inode struct {
	kind   uint16 // kindDir, kindFile, or another one
	size   int64  // of a file; of a directory's listing, plus 3
	start  int64  // of a file's blocks, from the start; of a listing's block, in its table
	offset int    // in that block
	frag   uint32
	blocks []uint32
}

const (
	kindDir  = 1
	kindFile = 2
	extended = 7 // added to a kind, for inodes with more fields
)

func (t *tree) inode(ref uint64) (*inode, error) {
	c := &cursor{t, t.inodes + int64(ref>>16&(1<<32-1)), int(ref & 0xffff)}
	head, err := c.next(16)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	n := &inode{kind: le.Uint16(head)}
	var b []byte
	switch n.kind {
	case kindDir:
		if b, err = c.next(16); err == nil {
			n.start, n.size, n.offset = int64(le.Uint32(b)), int64(le.Uint16(b[8:])), int(le.Uint16(b[10:]))
		}
	case kindDir + extended:
		if b, err = c.next(24); err == nil {
			n.start, n.size, n.offset = int64(le.Uint32(b[8:])), int64(le.Uint32(b[4:])), int(le.Uint16(b[18:]))
		}
		n.kind = kindDir
	case kindFile:
		if b, err = c.next(16); err == nil {
			n.start, n.frag, n.offset, n.size = int64(le.Uint32(b)), le.Uint32(b[4:]), int(le.Uint32(b[8:])), int64(le.Uint32(b[12:]))
			err = t.fileBlocks(c, n)
		}
	case kindFile + extended:
		if b, err = c.next(40); err == nil {
			n.start, n.frag, n.offset, n.size = int64(le.Uint64(b)), le.Uint32(b[28:]), int(le.Uint32(b[32:])), int64(le.Uint64(b[8:]))
			err = t.fileBlocks(c, n)
		}
		n.kind = kindFile
	}
	return n, err
}

// fileBlocks reads the sizes of a file's blocks, which follow its inode.
func (t *tree) fileBlocks(c *cursor, n *inode) error {
	if n.size < 0 || n.size > maxText {
		return fmt.Errorf("too large to be shown: %d bytes", n.size)
	}
	count := n.size / t.blockSize
	if n.frag == noFragment && n.size%t.blockSize > 0 {
		count++
	}
	b, err := c.next(int(4 * count))
	if err != nil {
		return err
	}
	for ; len(b) > 0; b = b[4:] {
		n.blocks = append(n.blocks, binary.LittleEndian.Uint32(b))
	}
	return nil
}

// An entry is a name in a directory.
type entry struct {
	name string
	ref  uint64
}

// list calls fn for each entry of a directory until it returns false.
func (t *tree) list(dir *inode, fn func(entry) bool) error {
	if dir.kind != kindDir {
		return backends.NotFound("not a directory")
	}
	left := dir.size - 3 // for "." and "..", which are not stored
	if left > t.maxDir {
		return fmt.Errorf("directory too large to be looked through: %d bytes", left)
	}
	c := &cursor{t, t.dirs + dir.start, dir.offset}
	le := binary.LittleEndian
	for left > 0 {
		head, err := c.next(12)
		if err != nil {
			return err
		}
		left -= 12
		count, start := le.Uint32(head), le.Uint32(head[4:])
		for range min(count, 255) + 1 {
			b, err := c.next(8)
			if err != nil {
				return err
			}
			name, err := c.next(min(int(le.Uint16(b[6:])), 255) + 1)
			if err != nil {
				return err
			}
			left -= 8 + int64(len(name))
			if !fn(entry{string(name), uint64(start)<<16 | uint64(le.Uint16(b))}) {
				return nil
			}
		}
	}
	return nil
}

// find returns the inode at path. Links are not followed.
// Errors: fs.ErrNotExist.
func (t *tree) find(path string) (*inode, error) {
	n, err := t.inode(t.root)
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(path, "/") {
		ref, found := uint64(0), false
		err := t.list(n, func(e entry) bool {
			if e.name == part {
				ref, found = e.ref, true
			}
			return !found
		})
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fs.ErrNotExist
		}
		if n, err = t.inode(ref); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// read returns the content of a regular file.
func (t *tree) read(n *inode) ([]byte, error) {
	if n.kind != kindFile {
		return nil, backends.NotFound("not a regular file")
	}
	out := make([]byte, 0, n.size)
	at := n.start
	for _, word := range n.blocks {
		want := min(t.blockSize, n.size-int64(len(out)))
		data, stored, err := t.data(at, word, want)
		if err != nil {
			return nil, err
		}
		if int64(len(data)) != want {
			return nil, fmt.Errorf("%w: a block of %d bytes, not %d", errSquash, len(data), want)
		}
		out = append(out, data...)
		at += stored
	}
	if rest := int(n.size) - len(out); rest > 0 {
		data, err := t.fragment(n.frag)
		if err != nil {
			return nil, err
		}
		if n.offset < 0 || n.offset > len(data) || rest > len(data)-n.offset {
			return nil, fmt.Errorf("%w: %d bytes at %d of a fragment of %d", errSquash, rest, n.offset, len(data))
		}
		out = append(out, data[n.offset:n.offset+rest]...)
	}
	return out, nil
}

// data returns a block of a file: the lower 24 bits of word are its size in the
// image, 0 for a hole of want bytes; bit 24 says that it is stored as it is.
func (t *tree) data(at int64, word uint32, want int64) (data []byte, stored int64, err error) {
	const plain = 1 << 24
	stored = int64(word &^ plain)
	switch {
	case stored == 0:
		return make([]byte, want), 0, nil
	case stored > t.blockSize || at < superblockSize || at > t.used-stored:
		return nil, 0, fmt.Errorf("%w: %d bytes at %d", errSquash, stored, at)
	}
	if data, err = t.p.bytes(t.base+at, stored); err == nil && word&plain == 0 {
		data, err = unpack(t.codec, data, int(t.blockSize))
	}
	return data, stored, err
}

// fragment returns a block that holds the ends of several files.
func (t *tree) fragment(i uint32) ([]byte, error) {
	const perBlock = metaBlock / 16
	if i >= t.fragments || t.fragTable < 0 {
		return nil, fmt.Errorf("%w: fragment %d of %d", errSquash, i, t.fragments)
	}
	list, err := t.p.bytes(t.base+t.fragTable+int64(i/perBlock)*8, 8)
	if err != nil {
		return nil, err
	}
	at := binary.LittleEndian.Uint64(list)
	if at > uint64(t.used) {
		return nil, fmt.Errorf("%w: fragment table at %d", errSquash, at)
	}
	c := &cursor{t, int64(at), int(i%perBlock) * 16}
	b, err := c.next(16)
	if err != nil {
		return nil, err
	}
	start := int64(binary.LittleEndian.Uint64(b))
	if start != t.fragAt {
		data, _, err := t.data(start, binary.LittleEndian.Uint32(b[8:]), 0)
		if err != nil {
			return nil, err
		}
		t.frag, t.fragAt = data, start
	}
	return t.frag, nil
}
