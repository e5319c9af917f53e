// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"context"
	"os"
	"slices"
	"sort"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A layer is what is known of one layer of an image.
type layer struct {
	descriptor  ocispec.Descriptor
	blob        digest.Digest // of the layer as the registry has it
	size        int64         // bytes there
	tar         digest.Digest
	bound       int64 // bytes of the tar at most
	compression vsif.Compression
	toc         vsif.Contents // its own table of contents
	packed      bool          // it has one
	dir, from   string        // see pathOf

	extender chan struct{} // full while somebody reads what nobody has read before

	mu     sync.Mutex // guards the fields below
	index  *index
	points []ref  // in the order of their places
	sums   []byte // of the chunks from the first on
	next   int64  // where in the tar the header begins that is to be read next
	count  int    // headers before it
	whole  int64  // bytes of the tar, once it was found right; else -1
	held   []held // the last one first

	kept    []vsif.Entry  // all headers, until they are asked for: reading the index twice takes as long as making the tables
	members []vsif.Member // of a layer with a table of contents, in the order of their offsets
}

// A ref is a point whose window is in the index.
type ref struct {
	in, out int64
	at      int64 // of its record
}

const (
	sumSize = 32
	maxHeld = 8 // files with one layer that are remembered
)

// newLayer returns what is known of a layer. Errors: vsif.ErrLayer; those of the disk.
func newLayer(d ocispec.Descriptor, tar digest.Digest, bound int64, dir, from string) (*layer, error) {
	compression, err := vsif.Compressed(d)
	if err != nil {
		return nil, err
	}
	l := &layer{descriptor: d, blob: d.Digest, size: d.Size, tar: tar, bound: bound, compression: compression,
		dir: dir, from: from, extender: make(chan struct{}, 1), whole: -1}
	l.toc, l.packed = vsif.TOC(d)
	l.points = []ref{{}}
	l.index, err = openIndex(dir, l.key(), from, l.learn)
	return l, err
}

// key is the digest under which the index is kept: the same layer has other contents in its
// region if it is read by its table.
func (l *layer) key() digest.Digest {
	if l.packed {
		return l.toc.Digest
	}
	return l.blob
}

// learn takes a record of the index into account, which stands at an offset of it. Call
// with mu held, once the layer is in use.
func (l *layer) learn(r record, at int64) {
	if r.Held != nil {
		l.held = slices.Insert(slices.DeleteFunc(l.held, func(h held) bool { return h == *r.Held }), 0, *r.Held)
		l.held = l.held[:min(len(l.held), maxHeld)]
		return
	}
	l.next, l.count = r.Next, l.count+len(r.Entries)
	for _, sum := range r.Sums {
		l.sums = append(l.sums, sum...)
	}
	l.kept, l.members = append(l.kept, r.Entries...), append(l.members, r.Members...)
	if r.Point != nil {
		l.points = append(l.points, ref{r.Point.Point.In, r.Point.Point.Out, at})
	}
	if r.End != nil && r.End.Size <= l.bound {
		l.whole = r.End.Size
	}
}

// extend adds a record to the index. Errors: those of the disk.
func (l *layer) extend(r record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, err := l.index.add(r)
	if err != nil {
		return err
	}
	l.learn(r, at)
	if r.End != nil && l.dir != "" {
		return l.index.finish(l.dir, l.key())
	}
	return nil
}

// note remembers a file that has the tar. That it is not remembered costs fetching it again.
func (l *layer) note(h held) {
	l.mu.Lock()
	known := l.whole < 0 || slices.Contains(l.held, h)
	l.mu.Unlock()
	if !known {
		_ = l.extend(record{Held: &h})
	}
}

// holder returns a file that has the tar, and where; nil if there is none.
func (l *layer) holder(whole func(name string) *os.File) (*os.File, int64) {
	l.mu.Lock()
	all := slices.Clone(l.held)
	l.mu.Unlock()
	for _, h := range all {
		if f := whole(h.Name); f != nil {
			return f, h.Offset
		}
	}
	return nil, 0
}

// last returns where in the tar the last point is.
func (l *layer) last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.points[len(l.points)-1].out
}

// known returns how large the tar is, if it was read to its end and found right.
func (l *layer) known() (size int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole, l.whole >= 0
}

// sum returns the SHA-256 of a chunk of the tar.
func (l *layer) sum(chunk int) (sum []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sums) < (chunk+1)*sumSize {
		return nil, false
	}
	return l.sums[chunk*sumSize:][:sumSize], true
}

// before returns the number of the last point at or before a place in the tar. Call with mu held.
func (l *layer) before(off int64) int {
	return sort.Search(len(l.points), func(i int) bool { return l.points[i].out > off }) - 1
}

// unit returns what is best fetched together with [from, to) of the tar, and lies within
// size bytes: what lies between two points anyway.
func (l *layer) unit(from, to, size int64) (first, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.packed {
		return l.pieces(from, to, size)
	}
	i, n := l.before(from), l.before(to-1)+1
	first, last = chunks.Count(l.points[i].out)*chunks.Size, size
	if n < len(l.points) {
		last = max(l.points[n].out/chunks.Size*chunks.Size, to)
	}
	return min(first, from), min(last, size)
}

// start returns the point to begin at to read the tar from an offset on, and where the
// layer ends that has to be read for what lies before to: to the end, if that is not known.
// To extend, nothing may be left out.
func (l *layer) start(off, to int64, extend bool) (p point, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end = l.size
	if extend {
		off = min(off, l.next, int64(len(l.sums)/sumSize)*chunks.Size)
	} else if n := l.before(to-1) + 1; n < len(l.points) {
		end = l.points[n].in
	}
	at := l.points[l.before(off)]
	if at.out == 0 && at.in == 0 {
		return p, end, nil
	}
	r, _, err := l.index.read(at.at)
	if err != nil {
		return p, 0, err
	}
	return *r.Point, end, nil
}

// needless reports whether what lies before to can be read without extending the index.
func (l *layer) needless(to int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole >= 0 || l.points[len(l.points)-1].out >= to
}

// seize returns with extender held, or without if what lies before to can be read so.
// Errors: ctx's.
func (l *layer) seize(ctx context.Context, to int64) (held bool, err error) {
	if l.needless(to) {
		return false, nil
	}
	select {
	case l.extender <- struct{}{}:
	case <-ctx.Done():
		return false, fetch.ErrClosed
	}
	if l.needless(to) {
		<-l.extender
		return false, nil
	}
	return true, nil
}

// forget drops what was learnt, as it was found wrong.
func (l *layer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.whole < 0 {
		l.index.drop()
	}
}

// entries returns all headers. Errors: those of the disk.
func (l *layer) entries() ([]vsif.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kept := l.kept; len(kept) == l.count {
		l.kept = nil
		return kept, nil
	}
	return l.index.entries()
}

// close closes the index.
func (l *layer) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index.f.Close()
}
