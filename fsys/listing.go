// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"

	"github.com/sregfs/sregfs/backends"
)

// A Listing reads a directory step by step, and can go elsewhere in it. Entries
// are numbered from 1 on. It keeps some pieces of the directory, whatever its size:
// going back further reads the directory anew. While the caller looks at one piece
// the next is made. It is not safe for concurrent use.
type Listing struct {
	dir    *Dir
	piece  *piece // valid until the next one is received
	before int    // entries before piece
	at     int    // entries handed out
	ended  bool   // nothing comes after piece
	err    error  // but this

	reading *reading // nil before the first piece and after the last
}

// A reading is a directory on its way through a goroutine, which ends with it.
type reading struct {
	cancel context.CancelFunc
	full   chan *piece // closed at the end
	free   chan *piece
	err    error // once full is closed
}

// OpenListing starts a listing of d; nothing is read yet. The caller closes it.
func (d *Dir) OpenListing() *Listing { return &Listing{dir: d, piece: new(piece)} }

// Next returns the next entry, valid until the next call; nil at the end. It can
// wait for a registry: when ctx ends it gives ctx's error, and the next call
// goes on.
//
// Errors: those of Dir.List.
func (l *Listing) Next(ctx context.Context) (*Entry, error) {
	for l.at-l.before >= len(l.piece.entries) {
		if l.ended {
			return nil, l.err
		}
		if err := l.read(ctx); err != nil {
			return nil, err
		}
	}
	e := &l.piece.entries[l.at-l.before]
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
		*l = Listing{dir: l.dir, piece: new(piece)}
	}
	for l.before+len(l.piece.entries) < offset && !l.ended {
		if err := l.read(ctx); err != nil {
			return err
		}
	}
	l.at = min(offset, l.before+len(l.piece.entries))
	return nil
}

// Close ends the listing. A second Close does nothing.
func (l *Listing) Close() {
	if l.reading != nil {
		l.reading.end()
		l.reading = nil
	}
}

// read takes the next piece in.
func (l *Listing) read(ctx context.Context) error {
	if l.reading == nil {
		l.reading = l.dir.read(ctx)
	}
	r := l.reading
	select {
	case p, ok := <-r.full:
		if ok {
			l.before += len(l.piece.entries)
			r.free <- l.piece
			l.piece = p
			return nil
		}
		l.ended, l.err = true, r.err
		l.Close()
		_ = backends.Raise(r.err) // here is somebody who recovers
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spares is how many pieces there are besides the one that the caller has: one
// that is ready and one that is being made.
const spares = 2

// read starts a reading. It lives longer than the request that asks for it, so
// its context is its own. The caller ends it.
func (d *Dir) read(ctx context.Context) *reading {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// Nobody waits to put a piece into a channel: each has room for all.
	r := &reading{cancel: cancel, full: make(chan *piece, spares+1), free: make(chan *piece, spares+1)}
	r.free <- new(piece)
	go func() {
		defer close(r.full)
		r.err = backends.Guard(nil, func() error {
			_, err := d.pieces(ctx, new(piece), func(p *piece) *piece {
				r.full <- p
				select {
				case next := <-r.free:
					return next
				case <-ctx.Done():
					return nil
				}
			})
			return err
		})
	}()
	return r
}

// end returns when the goroutine is over.
func (r *reading) end() {
	r.cancel()
	for range r.full { // what is left is not wanted
	}
}
