// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"iter"

	"github.com/sregfs/sregfs/catalog"
)

// An Entry is one name of a listing.
type Entry struct {
	Name string
	Ino  uint64 // of an image whose version the listing does not tell: another than Attr will show
	Dir  bool

	in     *Dir
	tool   *Dir           // if it is a tool's directory
	draft  *Draft         // if it is one
	listed catalog.Listed // else, below a remote
}

// Node returns what Lookup would return, where no registry need be asked for it;
// else nil. It is made anew with each call.
func (e *Entry) Node() Node {
	switch {
	case e.tool != nil:
		return e.tool
	case e.Dir && e.in.remote == "":
		return &Dir{fs: e.in.fs, remote: e.Name}
	case e.Dir:
		return &Dir{fs: e.in.fs, remote: e.in.remote, collection: e.listed.Collection}
	case e.draft != nil:
		return e.draft
	}
	if img := e.listed.Image(); img.Version != "" {
		return newImage(e.in.fs, e.in.remote, img)
	}
	return nil
}

// List yields the names in d, in no order, each once: collections, images, and
// drafts that no image hides. It asks the registry only if nothing is known yet.
//
// Errors: those of catalog.List; after one the sequence ends.
func (d *Dir) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		wanted, err := d.pieces(ctx, new(piece), func(p *piece) *piece {
			for _, e := range p.entries {
				if !yield(e, nil) {
					return nil
				}
			}
			return p
		})
		if err != nil && wanted {
			yield(Entry{}, err)
		}
	}
}

// listedName returns the draft's name, that of an image as images are listed,
// whatever it was created as.
func (d *Draft) listedName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ref, format, err := parseFile(d.name); err == nil && !d.place.temporary {
		return d.fs.opts.Names.fileName(ref, format)
	}
	return d.name
}

// hidesImage reports whether the draft stands for the image of its name.
func (d *Draft) hidesImage() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted() && !d.over()
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
