// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sregfs/sregfs/backends"
)

const (
	align     = 4 << 10
	tarAlign  = 256 << 10 // of the tars and the room: each can come in by itself, and be shared with another file
	headSize  = 32 << 10  // the header and its descriptors
	textRoom  = 64 << 10  // for what is made of a configuration that is empty
	textTimes = 16        // for each byte of one: quotes are escaped, and some texts stand in several files
	sizesRoom = 64        // for each tar in sizes
	tableRoom = 1 << 20   // for the tables of an empty tree
	tableTars = 16        // and a byte for so many of the tars
)

// A Region is a range of bytes of the file.
type Region struct{ Offset, Size int64 }

// End returns the offset behind it.
func (r Region) End() int64 { return r.Offset + r.Size }

// A Plan is where the parts of a file stand, and how large it is. It does not change.
type Plan struct {
	Size   int64    // of the file
	Layers []Region // where the tars stand; each may be shorter
	Room   Region   // for expanded files and tables; to the end of the file

	manifest  Region // oci-manifest.json
	image     Region // oci-image.json, the configuration as the registry has it
	sizes     Region // oci-sif.json
	config    Region // oci-config.json, what of it is for running
	metadata  Region // inspect-metadata.json
	partition Region
	files     Region // that are added to the tree
}

// NewPlan plans the file for a manifest and a configuration of so many bytes, and tars that
// have at most as many as bounds says.
//
// Errors: ErrLayer if the file would be larger than backends.MaxSize.
func NewPlan(manifest, config int64, bounds []int64) (*Plan, error) {
	if manifest < 0 || manifest > maxConfig || config < 0 || config > maxConfig {
		return nil, fmt.Errorf("%w: a manifest of %d bytes, and a configuration of %d", ErrLayer, manifest, config)
	}
	p, at, sum := &Plan{}, int64(headSize), int64(0)
	take := func(size int64) Region {
		r := Region{at, size}
		at = up(at+size, align)
		return r
	}
	p.config = take(config)
	p.metadata = take(textRoom + textTimes*config)
	p.manifest = take(manifest)
	p.image = take(config)
	p.sizes = take(sizesRoom * int64(len(bounds)+2))
	p.partition.Offset = at
	take(superSize)
	p.files = take(textRoom + textTimes*config)
	for _, bound := range bounds {
		if bound < 0 || bound > backends.MaxSize || sum > backends.MaxSize {
			return nil, fmt.Errorf("%w: a layer of %d bytes", ErrLayer, bound)
		}
		sum += bound
		at = up(at, tarAlign)
		p.Layers = append(p.Layers, take(bound))
	}
	at = up(at, tarAlign)
	p.Room = take(tableRoom + sum/tableTars)
	p.partition.Size, p.Size = at-p.partition.Offset, at
	if at > backends.MaxSize {
		return nil, fmt.Errorf("%w: a file of %d bytes", ErrLayer, at)
	}
	return p, nil
}

// Head returns what stands before the tars.
func (p *Plan) Head() Region {
	if len(p.Layers) > 0 {
		return Region{0, p.Layers[0].Offset}
	}
	return Region{0, p.Room.Offset}
}

func up(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// An Image is what the bytes of the file of an image are that stand in no layer. All others are those of
// the layers, and zeros.
type Image struct {
	Pieces   []Piece     // in the order of their offsets
	Expanded []Expansion // as above
}

// A Piece is bytes at an offset of the file.
type Piece struct {
	Offset int64
	Text   []byte
}

// An Expansion is a sparse file: those of its blocks (of BlockSize) that have a bit in Blocks
// stand one after the other from Offset on.
type Expansion struct {
	Layer  int    // that it stands in
	Header int64  // Entry.Offset of its entry there
	Size   int64  // in bytes, with its holes
	Blocks []byte // as in Entry
	Offset int64  // in the file
}

// Has reports whether a block of the file is there, and no hole.
func (e Expansion) Has(i int) bool { return hasBlock(e.Blocks, i) }

// Stored returns how many bytes of it there are, without its holes.
func (e Expansion) Stored() int64 {
	in := inode{size: e.Size, sparse: true, blocks: e.Blocks}
	return in.stored()
}

// A Source is what an image is made of besides its tree.
type Source struct {
	Manifest []byte  // as the registry has it
	Config   []byte  // its configuration, as the registry has it
	Bounds   []int64 // that the plan was made for
	Tars     []int64 // how large they are
}

// Build makes the file of a tree, which is of no use afterwards, and of what else the image
// is made of. The layers of the tree are those that the plan was made for.
//
// Errors: ErrLayer if the tree has no room in the plan; backends.ErrBadAnswer for a
// configuration that is none.
func (p *Plan) Build(t *Tree, src Source) (*Image, error) {
	c, err := readConfig(src.Config)
	if err != nil {
		return nil, err
	}
	if err := t.addRuntime(c); err != nil {
		return nil, err
	}
	b := &builder{plan: p, file: &Image{}}
	if err := b.place(t.root); err != nil {
		return nil, err
	}
	w := &writer{where: b.where}
	super, tables, err := w.tables(t.root, b.end-p.partition.Offset)
	if err != nil {
		return nil, err
	}
	if b.end+int64(len(tables)) > p.Room.End() {
		return nil, fmt.Errorf("%w: the tables of its %d files take %d bytes, and there is room for %d",
			ErrLayer, w.count, int64(len(tables)), p.Room.End()-b.end)
	}
	metadata, err := c.metadata()
	if err != nil {
		return nil, err
	}
	if int64(len(metadata)) > p.metadata.Size {
		return nil, fmt.Errorf("%w: its labels take %d bytes", ErrLayer, len(metadata))
	}
	sizes, err := src.sizes()
	if err != nil {
		return nil, err
	}
	b.piece(p.head(c, int64(len(metadata)), int64(len(sizes))), 0)
	b.piece(c.raw, p.config.Offset)
	b.piece(metadata, p.metadata.Offset)
	b.piece(src.Manifest, p.manifest.Offset)
	b.piece(src.Config, p.image.Offset)
	b.piece(sizes, p.sizes.Offset)
	b.piece(super, p.partition.Offset)
	b.piece(tables, b.end)
	slices.SortFunc(b.file.Pieces, func(a, b Piece) int { return cmp.Compare(a.Offset, b.Offset) })
	return b.file, nil
}

// A builder gives the files of a tree that no layer has as they are their places.
type builder struct {
	plan   *Plan
	file   *Image
	text   int64 // bytes of the files that were added
	sparse []*inode
	end    int64 // of the expanded files
}

func (b *builder) piece(text []byte, offset int64) {
	if len(text) > 0 {
		b.file.Pieces = append(b.file.Pieces, Piece{offset, text})
	}
}

func (b *builder) place(root *node) error {
	if err := b.collect(root); err != nil {
		return err
	}
	slices.SortFunc(b.sparse, func(x, y *inode) int { return cmp.Or(cmp.Compare(x.layer, y.layer), cmp.Compare(x.offset, y.offset)) })
	b.sparse = slices.Compact(b.sparse) // hard links
	b.end = b.plan.Room.Offset
	for _, in := range b.sparse {
		b.file.Expanded = append(b.file.Expanded, Expansion{in.layer, in.offset, in.size, in.blocks, b.end})
		in.offset = b.end
		b.end = up(b.end+in.stored(), align)
		if b.end > b.plan.Room.End() {
			return fmt.Errorf("%w: no room for its sparse files", ErrLayer)
		}
	}
	return nil
}

// collect finds what stands in no layer, in the order of the tree.
func (b *builder) collect(n *node) error {
	for _, child := range n.sorted() {
		if child.kind == Directory {
			if err := b.collect(child); err != nil {
				return err
			}
			continue
		}
		if child.sparse {
			b.sparse = append(b.sparse, child.inode)
		}
		if child.text == nil {
			continue
		}
		if b.text+child.size > b.plan.files.Size {
			return fmt.Errorf("%w: the scripts of its configuration take more than %d bytes", ErrLayer, b.plan.files.Size)
		}
		child.offset = b.plan.files.Offset + b.text
		b.piece(child.text, child.offset)
		b.text += child.size
	}
	return nil
}

// where returns where the bytes of a file stand in the partition.
func (b *builder) where(in *inode) int64 {
	at := in.offset
	if in.text == nil && !in.sparse {
		at += b.plan.Layers[in.layer].Offset
	}
	return at - b.plan.partition.Offset
}
