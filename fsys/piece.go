// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"maps"
	"slices"

	"github.com/sregfs/sregfs/catalog"
)

// How many entries are made at a time: few at first, for who only wants to know
// whether there are any.
const (
	firstPiece = 32
	largePiece = 512
)

// A piece is some entries of a listing, which share their memory. It is used
// again and again.
type piece struct {
	entries []Entry
	names   []byte // of entries, one after the other
	ends    []int  // where each name ends
	packed  []byte // what entries keep of the catalogue's
}

func (p *piece) reset() {
	p.entries, p.names, p.ends, p.packed = p.entries[:0], p.names[:0], p.ends[:0], p.packed[:0]
}

// seal gives the entries their names.
func (p *piece) seal() {
	all, start := string(p.names), 0
	for i, end := range p.ends {
		p.entries[i].Name = all[start:end]
		start = end
	}
}

// pieces reads the directory in pieces, so that a name costs nothing by itself. take
// gets each when it is full, and gives one to be filled next, which may be the same;
// nil ends it, and pieces reports that no more is wanted. The first is given.
func (d *Dir) pieces(ctx context.Context, first *piece, take func(*piece) *piece) (wanted bool, err error) {
	f := filler{dir: d, piece: first, limit: firstPiece, take: take}
	f.ino = appendParts(nil, "image", d.remote, d.collection)
	err = f.fill(ctx)
	return f.piece != nil && f.flush(), err
}

// A filler fills pieces.
type filler struct {
	dir   *Dir
	piece *piece // nil: no more is wanted
	limit int    // entries of this piece
	ino   []byte // what the inode numbers of images begin with
	take  func(*piece) *piece
}

// fill runs through the directory, until no more is wanted.
func (f *filler) fill(ctx context.Context) error {
	d := f.dir
	if d.remote == "" {
		for _, r := range d.fs.cat.Remotes() {
			dir := Dir{fs: d.fs, remote: r.Name}
			if !f.add(Entry{Ino: dir.ino(), Dir: true}, append(f.piece.names, r.Name...)) {
				break
			}
		}
		return nil
	}
	if _, err := d.fs.remote(d.remote); err != nil {
		return err
	}
	// Few files are being written at a time; all others stream by.
	drafts := make(map[string]*Draft)
	for _, draft := range d.drafts() {
		drafts[draft.listedName()] = draft
	}
	if d.tool == "" {
		for l, err := range d.fs.cat.Names(ctx, d.remote, d.collection) {
			if err != nil {
				return err
			}
			if !f.listed(l, drafts) {
				return nil
			}
		}
	}
	for _, name := range d.toolDirs() {
		child := d.toolDir(name)
		if !f.add(Entry{Ino: child.ino(), Dir: true, tool: child}, append(f.piece.names, name...)) {
			return nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(drafts)) { // in the same order each time
		draft := drafts[name]
		if !f.add(Entry{Ino: draft.ino, draft: draft}, append(f.piece.names, name...)) {
			break
		}
	}
	return nil
}

// listed takes what the catalogue lists, unless a draft hides it. Names that
// cannot stand in a tree are left out: the client has counted them.
func (f *filler) listed(l *catalog.Listed, drafts map[string]*Draft) (more bool) {
	d, p, start := f.dir, f.piece, len(f.piece.names)
	if l.Collection != "" {
		child := Dir{remote: d.remote, collection: l.Collection}
		names := append(p.names, dirName(lastPart(l.Collection))...)
		return f.add(Entry{Ino: child.ino(), Dir: true, listed: *l}, names)
	}
	if l.Ref.Check() != nil {
		return true
	}
	names := d.fs.opts.Names.appendFileName(p.names, l.Ref, l.Format)
	if len(drafts) > 0 {
		name := string(names[start:])
		if draft := drafts[name]; draft != nil && draft.hidesImage() {
			return true
		}
		delete(drafts, name)
	}
	e := Entry{Ino: f.imageIno(l)}
	e.listed, p.packed = l.Keep(p.packed)
	return f.add(e, names)
}

// imageIno is the function of that name for what is listed.
func (f *filler) imageIno(l *catalog.Listed) uint64 {
	if l.Ref.Collection != f.dir.collection {
		img := l.Image()
		return imageIno(f.dir.remote, &img)
	}
	start := len(f.ino)
	f.ino = l.AppendVersion(appendParts(f.ino, l.Ref.Name, l.Ref.Tag))
	ino := inodeOf(f.ino)
	f.ino = f.ino[:start]
	return ino
}

// add takes an entry whose name is at the end of names.
func (f *filler) add(e Entry, names []byte) (more bool) {
	p := f.piece
	e.in = f.dir
	p.names, p.ends, p.entries = names, append(p.ends, len(names)), append(p.entries, e)
	return len(p.entries) < f.limit || f.flush()
}

// flush hands out what was collected, and reports whether more is wanted.
func (f *filler) flush() bool {
	if len(f.piece.entries) > 0 {
		f.piece.seal()
		f.piece = f.take(f.piece)
		f.limit = largePiece
	}
	if f.piece == nil {
		return false
	}
	f.piece.reset()
	return true
}
