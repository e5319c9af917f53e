// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// How many entries are read at a time: few at first, because some callers only want to
// know whether the directory is empty.
const (
	firstBatch = 32
	fullBatch  = 512
)

// A batch is some entries of a listing, which share their memory. It is reused.
type batch struct {
	entries []Entry
	names   []byte // of entries, one after the other
	ends    []int  // where each name ends
	packed  []byte // copies of the catalogue's data that entries refer to
}

func (p *batch) reset() {
	p.entries, p.names, p.ends, p.packed = p.entries[:0], p.names[:0], p.ends[:0], p.packed[:0]
}

// setNames gives the entries their names, as parts of one string.
func (p *batch) setNames() {
	all, start := string(p.names), 0
	for i, end := range p.ends {
		p.entries[i].Name = all[start:end]
		start = end
	}
}

// batches reads the directory in batches, so that an entry needs no allocation of its
// own. It fills first and passes it to take, which returns the batch to fill next, perhaps
// the same one. If take returns nil, batches stops and reports that no more is wanted.
func (d *Dir) batches(ctx context.Context, first *batch, take func(*batch) *batch) (wanted bool, err error) {
	f := batchWriter{dir: d, batch: first, limit: firstBatch, take: take}
	f.ino = appendParts(nil, "image", d.remote, d.collection)
	err = f.writeAll(ctx)
	return f.batch != nil && f.flush(), err
}

// A batchWriter fills batches.
type batchWriter struct {
	dir   *Dir
	batch *batch // nil: no more is wanted
	limit int    // entries of this piece
	ino   []byte // common beginning of what inode numbers of images are made from
	both  bool   // container images are listed as archives, too
	take  func(*batch) *batch
}

// writeAll writes all entries of the directory, until no more is wanted.
func (f *batchWriter) writeAll(ctx context.Context) error {
	d := f.dir
	if d.finder != "" {
		return nil
	}
	if d.remote == "" {
		for _, r := range d.fs.cat.Remotes() {
			dir := Dir{fs: d.fs, remote: r.Name}
			if !f.add(Entry{Ino: dir.ino(), Dir: true}, append(f.batch.names, r.Name...)) {
				break
			}
		}
		return nil
	}
	r, err := d.fs.remote(d.remote)
	if err != nil {
		return err
	}
	f.both = r.Client != nil && r.Client.ListsArchives()
	// Few files are being written at a time, so the drafts fit into a map.
	drafts := make(map[string]*Draft)
	for _, draft := range d.drafts() {
		drafts[draft.listedName()] = draft
	}
	if d.tool == "" {
		for l, err := range d.fs.cat.Names(ctx, d.remote, d.collection) {
			if err != nil {
				return err
			}
			if !f.addListed(l, drafts) {
				return nil
			}
		}
	}
	for _, name := range d.toolDirs() {
		child := d.toolDir(name)
		if !f.add(Entry{Ino: child.ino(), Dir: true, tool: child}, append(f.batch.names, name...)) {
			return nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(drafts)) { // in the same order each time
		draft := drafts[name]
		if !f.add(Entry{Ino: draft.ino, draft: draft}, append(f.batch.names, name...)) {
			break
		}
	}
	return nil
}

// addListed adds an entry of the catalogue, unless a draft shadows it. Names that cannot
// be in a tree are left out: the client has counted them.
func (f *batchWriter) addListed(l *catalog.Listed, drafts map[string]*Draft) (more bool) {
	d := f.dir
	if l.Collection != "" {
		child := Dir{remote: d.remote, collection: l.Collection}
		names := append(f.batch.names, dirName(lastPart(l.Collection))...)
		return f.add(Entry{Ino: child.ino(), Dir: true, listed: *l}, names)
	}
	if l.Ref.Check() != nil {
		return true
	}
	if !f.both {
		return f.addImage(l, drafts, false)
	}
	img := l.Image()
	if img.Version != "" && !catalog.HasForms(&img) || img.Version == "" && l.Format != backends.FormatArchive {
		return f.addImage(l, drafts, false)
	}
	format := l.Format
	defer func() { l.Format = format }()
	l.Format = backends.FormatSIF
	if !f.addImage(l, drafts, false) {
		return false
	}
	l.Format = backends.FormatArchive
	return f.addImage(l, drafts, true)
}

// addImage adds the image of an entry; other says that it is not in the form that is known.
func (f *batchWriter) addImage(l *catalog.Listed, drafts map[string]*Draft, other bool) (more bool) {
	p, start := f.batch, len(f.batch.names)
	names := f.dir.fs.opts.Names.appendFileName(p.names, l.Ref, l.Format)
	if len(drafts) > 0 {
		name := string(names[start:])
		if draft := drafts[name]; draft != nil && draft.shadowsListed() {
			return true
		}
		delete(drafts, name)
	}
	e := Entry{Ino: f.imageIno(l), other: other}
	e.listed, p.packed = l.Keep(p.packed)
	return f.add(e, names)
}

// imageIno is the function of that name for a listed image.
func (f *batchWriter) imageIno(l *catalog.Listed) uint64 {
	if l.Ref.Collection != f.dir.collection {
		img := l.Image()
		img.Format = l.Format
		return imageIno(f.dir.remote, &img)
	}
	start := len(f.ino)
	f.ino = l.AppendVersion(appendForm(appendParts(f.ino, l.Ref.Name, l.Ref.Tag), l.Format))
	ino := inodeOf(f.ino)
	f.ino = f.ino[:start]
	return ino
}

// add adds an entry whose name is the last one in names.
func (f *batchWriter) add(e Entry, names []byte) (more bool) {
	p := f.batch
	e.in = f.dir
	p.names, p.ends, p.entries = names, append(p.ends, len(names)), append(p.entries, e)
	return len(p.entries) < f.limit || f.flush()
}

// flush passes the batch on, and reports whether more is wanted.
func (f *batchWriter) flush() bool {
	if len(f.batch.entries) > 0 {
		f.batch.setNames()
		f.batch = f.take(f.batch)
		f.limit = fullBatch
	}
	if f.batch == nil {
		return false
	}
	f.batch.reset()
	return true
}

// List yields the names in d, in no order, each once: collections, images, and
// drafts that no image hides. It asks the registry only if nothing is known yet.
//
// Errors: those of catalog.List; after one the sequence ends.
func (d *Dir) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		wanted, err := d.batches(ctx, new(batch), func(p *batch) *batch {
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

// Cacheable reports whether List gives the same until Watch tells of a change. It does not
// for files of this machine, which other programs add, nor while files are being written.
func (d *Dir) Cacheable() bool {
	if d.Volatile() {
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

// RefreshListing starts a refresh in the background if the listing is out of date, as
// List does, for a caller that has the listing already.
func (d *Dir) RefreshListing(ctx context.Context) {
	if d.remote == "" {
		return
	}
	for _, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
		_ = err // the next List returns it
		return
	}
}
