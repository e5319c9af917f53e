// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"fmt"
	"math"
)

// A name is an entry of a listing.
type name struct {
	number, kind int64
	at           ref // of its inode
	text         []byte
}

// names reads the listing of a directory.
func (t *tables) names(n *inode) (all []name, err error) {
	all = make([]name, 0, n.length/16)
	if n.listing > int64(len(t.src.directories)) || n.length < 3 || n.length-3 > int64(len(t.src.directories))-n.listing {
		return nil, fmt.Errorf("%w: a listing of %d bytes", errSource, n.length)
	}
	c := &cursor{b: t.src.directories[n.listing:][:n.length-3]} // without what stands for "." and ".."
	for len(c.b) > 0 {
		count := c.u32() + 1
		c.u32() // the block of the inodes
		first := c.u32()
		for ; count > 0 && !c.bad; count-- {
			c.u16()                                                         // the offset in it
			e := name{number: first + int64(int16(c.u16())), kind: c.u16()} //nolint:gosec // as the format has it
			e.text = c.bytes(c.u16() + 1)
			if e.number <= 0 || e.number >= int64(len(t.refs)) {
				c.bad = true
				break
			}
			e.at = t.refs[e.number]
			all = append(all, e)
		}
	}
	if c.bad {
		return nil, fmt.Errorf("%w: its directories are damaged", errSource)
	}
	return all, nil
}

// directory writes the listing of a directory, and its inode.
func (t *tables) directory(n *inode) error {
	all, err := t.names(n)
	if err != nil {
		return err
	}
	at := t.directories.at()
	index, size := t.listing(all)
	size += 3 // as the kernel counts "." and ".."
	if len(index) > math.MaxUint16 {
		return fmt.Errorf("%w: a directory of %d files", errSource, len(all))
	}
	if n.xattr == none && len(index) == 0 && size <= math.MaxUint16 {
		t.begin(n, typeDirectory)
		t.inodes.u32(int64(at >> 16)) //nolint:gosec // 48 bits
		t.inodes.u32(n.links)
		t.inodes.u16(size)
		t.inodes.u16(int64(at & 0xffff)) //nolint:gosec // 16 bits
		t.inodes.u32(n.parent)
		return nil
	}
	t.begin(n, typeDirectory+extended)
	t.inodes.u32(n.links)
	t.inodes.u32(size)
	t.inodes.u32(int64(at >> 16)) //nolint:gosec // 48 bits
	t.inodes.u32(n.parent)
	t.inodes.u16(int64(len(index)))
	t.inodes.u16(int64(at & 0xffff)) //nolint:gosec // 16 bits
	t.inodes.u32(n.xattr)
	for _, i := range index {
		t.inodes.u32(i.offset)
		t.inodes.u32(i.block)
		t.inodes.u32(int64(len(i.text) - 1))
		t.inodes.write(i.text)
	}
	return nil
}

// An indexEntry says where in a long listing names from one on stand.
type indexEntry struct {
	offset int64 // of a header, from the begin of the listing
	block  int64 // that it is in, from the begin of the table
	text   []byte
}

// listing writes names, and returns how many bytes they take. A header is for names whose
// inodes stand in one metadata block, and have numbers within 16 bits of each other.
func (t *tables) listing(all []name) (index []indexEntry, size int64) {
	d := &t.directories
	last := d.at() >> 16
	for len(all) > 0 {
		first := all[0]
		n := 1
		for n < len(all) && n < headerEntries && first.fits(all[n]) {
			n++
		}
		if block := d.at() >> 16; block != last {
			last = block
			index = append(index, indexEntry{size, int64(block), first.text}) //nolint:gosec // 48 bits
		}
		d.u32(int64(n - 1))
		d.u32(int64(first.at >> 16)) //nolint:gosec // 48 bits
		d.u32(first.number)
		size += 12
		for _, e := range all[:n] {
			d.u16(int64(e.at & 0xffff)) //nolint:gosec // 16 bits
			d.u16(e.number - first.number)
			d.u16(e.kind)
			d.u16(int64(len(e.text) - 1))
			d.write(e.text)
			size += 8 + int64(len(e.text))
		}
		all = all[n:]
	}
	return index, size
}

func (e name) fits(other name) bool {
	delta := other.number - e.number
	return e.at>>16 == other.at>>16 && delta >= math.MinInt16 && delta <= math.MaxInt16
}
