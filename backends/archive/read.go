// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"io"
	"sort"
)

// A BlobOpener returns n bytes from off of a blob of that size; they lie within it.
type BlobOpener func(digest string, size, off, n int64) (io.ReadCloser, error)

// Open returns n bytes of the file from off, or as many as there are; a negative
// n means to the end. What comes first is opened at once, each further blob when
// the reader gets there, and none that the range does not touch. The caller
// closes the result, which is for one goroutine.
//
// Errors: those of open, also from Read; io.ErrUnexpectedEOF from Read if a blob
// is shorter than the manifest says. Bytes beyond that are not read.
func (a *Archive) Open(off, n int64, open BlobOpener) (io.ReadCloser, error) {
	end := a.size
	if n >= 0 {
		end = off + min(n, max(a.size-off, 0))
	}
	r := &reader{archive: a, open: open, pos: off, end: end}
	r.next = sort.Search(len(a.pieces), func(i int) bool { return a.pieces[i].off+a.pieces[i].size > off })
	if err := r.advance(); err != nil && err != io.EOF { //nolint:errorlint // advance returns it bare
		return nil, err
	}
	return r, nil
}

// A reader reads a range of the file, piece by piece.
type reader struct {
	archive  *Archive
	open     BlobOpener
	pos, end int64
	next     int           // piece to read after this one
	blob     io.ReadCloser // of this piece, if it is one
	text     []byte        // else what is left of it
	left     int64         // bytes of this piece
}

// advance goes to the next piece that has bytes for us. Errors: io.EOF at the
// end; those of open.
func (r *reader) advance() error {
	for r.left == 0 {
		r.closeBlob()
		if r.pos >= r.end || r.next == len(r.archive.pieces) {
			return io.EOF
		}
		p := r.archive.pieces[r.next]
		r.next++
		from := r.pos - p.off
		n := min(p.size, r.end-p.off) - from
		if n <= 0 {
			continue // an empty blob
		}
		if p.blob == "" {
			r.text = p.text[from : from+n]
		} else {
			var err error
			if r.blob, err = r.open(p.blob, p.size, from, n); err != nil {
				return err
			}
		}
		r.left = n
	}
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.advance(); err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), r.left)]
	var n int
	var err error
	if r.blob != nil {
		n, err = r.blob.Read(p)
	} else {
		n = copy(p, r.text)
		r.text = r.text[n:]
	}
	r.pos, r.left = r.pos+int64(n), r.left-int64(n)
	if err == io.EOF {
		err = nil
		if r.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (r *reader) closeBlob() {
	if r.blob != nil {
		r.blob.Close()
		r.blob = nil
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.closeBlob()
	r.end = r.pos
	r.left = 0
	return nil
}
