// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// An Entry is one name of a listing.
type Entry struct {
	Name string
	Ino  uint64 // of an image whose version the listing does not tell: another than Attr will show
	Dir  bool

	in    *Dir
	draft *Draft         // if it is one
	image backends.Image // if it is one
	child string         // collection, if Dir
}

// Node returns what Lookup would return, where no registry need be asked for it;
// else nil. It is made anew with each call.
func (e *Entry) Node() Node {
	switch {
	case e.Dir && e.in.remote == "":
		return &Dir{fs: e.in.fs, remote: e.Name}
	case e.Dir:
		return &Dir{fs: e.in.fs, remote: e.in.remote, collection: e.child}
	case e.draft != nil:
		return e.draft
	case e.image.Version != "":
		return newImage(e.in.fs, e.in.remote, e.image)
	}
	return nil
}

// List yields the names in d, in no order, each once: collections, images, and
// drafts that no image hides. It asks the registry only if nothing is known yet.
//
// Errors: those of catalog.List; after one the sequence ends.
func (d *Dir) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for part, err := range d.parts(ctx, 0) {
			for _, e := range part {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(Entry{}, err)
			}
		}
	}
}

// parts is List in pieces, without the first skip entries: a name costs some
// bytes of its piece, and nothing by itself. A piece is valid until the next one.
func (d *Dir) parts(ctx context.Context, skip int) iter.Seq2[[]Entry, error] {
	return func(yield func([]Entry, error) bool) {
		p := pieces{dir: d, skip: skip, limit: firstPiece, yield: yield}
		err := p.fill(ctx)
		if !p.ended && p.flush() && err != nil {
			yield(nil, err)
		}
	}
}

// How many entries are made at a time: few at first, for who only wants to know
// whether there are any.
const (
	firstPiece = 32
	largePiece = 512
)

// pieces collects the entries of a listing.
type pieces struct {
	dir     *Dir
	skip    int // entries still to be left out
	limit   int
	names   []byte // of entries, one after the other
	ends    []int  // where each name ends
	entries []Entry
	yield   func([]Entry, error) bool
	ended   bool // the caller wants no more
}

// fill runs through the directory, until the caller wants no more.
func (p *pieces) fill(ctx context.Context) error {
	d := p.dir
	if d.remote == "" {
		for _, r := range d.fs.cat.Remotes() {
			dir := Dir{fs: d.fs, remote: r.Name}
			if !p.add(Entry{Ino: dir.ino(), Dir: true}, append(p.names, r.Name...)) {
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
	for e, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		if err != nil {
			return err
		}
		if !p.listed(e, drafts) {
			return nil
		}
	}
	for name, draft := range drafts {
		if !p.add(Entry{Ino: draft.ino, draft: draft}, append(p.names, name...)) {
			break
		}
	}
	return nil
}

// listed takes what the catalogue lists, unless a draft hides it. Names that
// cannot stand in a tree are left out: the client has counted them.
func (p *pieces) listed(e backends.Entry, drafts map[string]*Draft) (more bool) {
	d, start := p.dir, len(p.names)
	if e.Collection != "" {
		child := Dir{remote: d.remote, collection: e.Collection}
		names := append(p.names, dirName(lastPart(e.Collection))...)
		return p.add(Entry{Ino: child.ino(), Dir: true, child: e.Collection}, names)
	}
	if e.Image.Ref.Check() != nil {
		return true
	}
	names := appendFileName(p.names, e.Image.Ref, e.Image.Format)
	if len(drafts) > 0 {
		name := string(names[start:])
		if draft := drafts[name]; draft != nil && draft.hidesImage() {
			return true
		}
		delete(drafts, name)
	}
	return p.add(Entry{Ino: imageIno(d.remote, &e.Image), image: e.Image}, names)
}

// add takes an entry whose name is at the end of names.
func (p *pieces) add(e Entry, names []byte) (more bool) {
	if p.skip > 0 {
		p.skip--
		return true
	}
	e.in = p.dir
	p.names, p.ends, p.entries = names, append(p.ends, len(names)), append(p.entries, e)
	return len(p.entries) < p.limit || p.flush()
}

// flush hands out what was collected.
func (p *pieces) flush() (more bool) {
	if len(p.entries) == 0 {
		return true
	}
	all, start := string(p.names), 0
	for i, end := range p.ends {
		p.entries[i].Name = all[start:end]
		start = end
	}
	p.ended = !p.yield(p.entries, nil)
	p.names, p.ends, p.entries, p.limit = p.names[:0], p.ends[:0], p.entries[:0], largePiece
	return !p.ended
}

// listedName returns the draft's name, that of an image as images are listed,
// whatever it was created as.
func (d *Draft) listedName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ref, format, err := parseFile(d.name); err == nil && !d.place.temporary {
		return fileName(ref, format)
	}
	return d.name
}

// hidesImage reports whether the draft stands for the image of its name.
func (d *Draft) hidesImage() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted && !d.over()
}

// A Listing reads a directory step by step, and can go elsewhere in it. Entries
// are numbered from 1 on. It keeps one piece of the directory, whatever its size:
// going back further reads the directory anew. It is not safe for concurrent use.
type Listing struct {
	dir    *Dir
	piece  []Entry // valid until the next call of next
	before int     // entries before piece
	at     int     // entries handed out
	ended  bool    // nothing comes after piece
	err    error   // but this
	next   func() ([]Entry, error, bool)
	stop   func()
	cancel context.CancelFunc
}

// Steady reports whether List gives the same until Watch tells of a change: not
// for files of this machine, which others add, nor while files are being written.
func (d *Dir) Steady() bool {
	if d.Fresh() {
		return false
	}
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	for p := range d.fs.drafts {
		if p.remote == d.remote && p.collection == d.collection {
			return false
		}
	}
	return true
}

// Recheck refreshes the listing behind the caller's back if that is due, as List
// does: for who knows what List would give.
func (d *Dir) Recheck(ctx context.Context) {
	if d.remote == "" {
		return
	}
	for _, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		_ = err // whoever lists will see it
		return
	}
}

// OpenListing starts a listing of d; nothing is read yet. The caller closes it.
func (d *Dir) OpenListing() *Listing { return &Listing{dir: d} }

// Next returns the next entry, valid until the next call; nil at the end. It can
// wait for a registry: when ctx ends it gives ctx's error, and the next call
// goes on.
//
// Errors: those of Dir.List.
func (l *Listing) Next(ctx context.Context) (*Entry, error) {
	for l.at-l.before >= len(l.piece) {
		if l.ended {
			return nil, l.err
		}
		if err := l.read(ctx); err != nil {
			return nil, err
		}
	}
	e := &l.piece[l.at-l.before]
	l.at++
	return e, nil
}

// Offset is the number of the entry that Next returned last; 0 at the start.
func (l *Listing) Offset() int { return l.at }

// Seek goes on after the entry of that number, or after the last one. Going to
// the start reads the directory as it is then.
func (l *Listing) Seek(ctx context.Context, offset int) error {
	if offset < l.before || offset == 0 {
		l.Close()
		l.piece, l.before, l.at, l.ended, l.err = nil, offset, offset, false, nil
		return nil
	}
	for l.before+len(l.piece) < offset && !l.ended {
		if err := l.read(ctx); err != nil {
			return err
		}
	}
	l.at = min(offset, l.before+len(l.piece))
	return nil
}

// Close ends the listing. A second Close does nothing.
func (l *Listing) Close() {
	if l.stop != nil {
		l.cancel()
		l.stop()
		l.stop, l.next = nil, nil
	}
}

// read takes the next piece in. The iteration lives longer than the request
// that asks for it, so it has a context of its own, which ends with a request
// that is given up; it then starts anew and skips what was read.
func (l *Listing) read(ctx context.Context) error {
	done := l.before + len(l.piece)
	if l.next == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		l.cancel = cancel
		l.next, l.stop = iter.Pull2(l.dir.parts(own, done))
	}
	stop := context.AfterFunc(ctx, l.cancel)
	piece, err, ok := l.next()
	stop()
	if ok && err == nil {
		l.piece, l.before = piece, done
		return nil
	}
	l.Close()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return err
	}
	l.ended, l.err = true, err
	return nil
}
