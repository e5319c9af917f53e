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
	// Node is what Lookup would return, where no registry need be asked for it;
	// else nil. A Listing gives it only when the entry is read first.
	Node Node
}

// List yields the names in d, in no order, each once: collections, images, and
// drafts that no image hides. It asks the registry only if nothing is known yet.
//
// Errors: those of catalog.List; after one the sequence ends.
func (d *Dir) List(ctx context.Context) iter.Seq2[Entry, error] {
	if d.remote == "" {
		return d.listRemotes()
	}
	return func(yield func(Entry, error) bool) {
		if _, err := d.fs.remote(d.remote); err != nil {
			yield(Entry{}, err)
			return
		}
		// Few files are being written at a time; all others stream by.
		drafts := make(map[string]*Draft)
		for _, draft := range d.drafts() {
			drafts[draft.listedName()] = draft
		}
		for e, err := range d.fs.cat.List(ctx, d.remote, d.collection) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			entry, ok := d.entry(e)
			if !ok {
				continue
			}
			if draft := drafts[entry.Name]; draft != nil && !draft.hidesImage() {
				delete(drafts, entry.Name)
			} else if draft != nil {
				continue
			}
			if !yield(entry, nil) {
				return
			}
		}
		for name, draft := range drafts {
			if !yield(Entry{Name: name, Ino: draft.ino, Node: draft}, nil) {
				return
			}
		}
	}
}

func (d *Dir) listRemotes() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, r := range d.fs.cat.Remotes() {
			dir := &Dir{fs: d.fs, remote: r.Name}
			if !yield(Entry{Name: r.Name, Ino: dir.ino(), Dir: true, Node: dir}, nil) {
				return
			}
		}
	}
}

// entry turns what the catalogue lists into a name. Names that cannot stand in a
// tree are left out: the client has counted them.
func (d *Dir) entry(e backends.Entry) (Entry, bool) {
	if e.Collection != "" {
		child := &Dir{fs: d.fs, remote: d.remote, collection: e.Collection}
		return Entry{Name: dirName(lastPart(e.Collection)), Ino: child.ino(), Dir: true, Node: child}, true
	}
	if e.Image.Ref.Check() != nil {
		return Entry{}, false
	}
	entry := Entry{Name: fileName(e.Image.Ref, e.Image.Format), Ino: imageIno(d.remote, e.Image)}
	if e.Image.Version != "" {
		entry.Node = newImage(d.fs, d.remote, e.Image)
	}
	return entry, true
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

// A Listing reads a directory in pieces, and can go back. Entries are numbered
// from 1 on; it keeps what it has read, at some 40 bytes an entry. It is not safe
// for concurrent use.
type Listing struct {
	dir    *Dir
	names  []byte   // of all entries read, one after the other
	ends   []uint32 // where each name ends
	inos   []uint64
	dirs   []bool
	at     int  // entries handed out
	fresh  Node // of the entry that was read last
	ended  bool
	err    error
	next   func() (Entry, error, bool)
	stop   func()
	cancel context.CancelFunc
}

// OpenListing starts a listing of d; nothing is read yet. The caller closes it.
func (d *Dir) OpenListing() *Listing { return &Listing{dir: d} }

// Next returns the next entry; ok is false at the end. It can wait for a
// registry: when ctx ends it gives ctx's error, and the next call goes on.
//
// Errors: those of Dir.List.
func (l *Listing) Next(ctx context.Context) (e Entry, ok bool, err error) {
	for l.at >= len(l.ends) {
		if l.ended {
			return Entry{}, false, l.err
		}
		if err := l.read(ctx); err != nil {
			return Entry{}, false, err
		}
	}
	e = l.entry(l.at)
	l.at++
	if l.at == len(l.ends) {
		e.Node = l.fresh
	}
	return e, true, nil
}

// Offset is the number of the entry that Next returned last; 0 at the start.
func (l *Listing) Offset() int { return l.at }

// Seek goes on after the entry of that number.
func (l *Listing) Seek(ctx context.Context, offset int) error {
	if offset < l.at {
		l.at = offset
	}
	for l.at < offset {
		if _, ok, err := l.Next(ctx); err != nil || !ok {
			return err
		}
	}
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

func (l *Listing) entry(i int) Entry {
	start := uint32(0)
	if i > 0 {
		start = l.ends[i-1]
	}
	return Entry{Name: string(l.names[start:l.ends[i]]), Ino: l.inos[i], Dir: l.dirs[i]}
}

// read takes one more entry in. The iteration lives longer than the request
// that asks for the entry, so it has a context of its own, which ends with a
// request that is given up; it then starts anew and skips what was read.
func (l *Listing) read(ctx context.Context) error {
	if l.next == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		l.cancel = cancel
		l.next, l.stop = iter.Pull2(l.dir.skip(own, len(l.ends)))
	}
	stop := context.AfterFunc(ctx, l.cancel)
	e, err, ok := l.next()
	stop()
	if ok && err == nil {
		l.names = append(l.names, e.Name...)
		l.ends = append(l.ends, uint32(len(l.names)))
		l.inos, l.dirs = append(l.inos, e.Ino), append(l.dirs, e.Dir)
		l.fresh = e.Node
		return nil
	}
	l.Close()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return err
	}
	l.ended, l.err = true, err
	return nil
}

// skip is List without the first n entries.
func (d *Dir) skip(ctx context.Context, n int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range d.List(ctx) {
			if n--; n >= 0 && err == nil {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
