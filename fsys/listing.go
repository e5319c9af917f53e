// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"hash/maphash"

	"github.com/sregfs/sregfs/backends"
)

// A Listing reads a directory step by step, and can go elsewhere in it. It keeps
// some pieces of the directory, whatever its size: going back further reads the
// directory anew. While the caller looks at one piece the next is made. It is not
// safe for concurrent use.
type Listing struct {
	dir    *Dir
	batch  *batch // valid until the next one is received
	before int    // entries before piece
	at     int    // entries handed out
	ended  bool   // nothing comes after piece
	err    error  // but this

	ahead *readAhead // nil before the first piece and after the last
}

// A reading is a directory on its way through a goroutine, which ends with it.
type readAhead struct {
	cancel context.CancelFunc
	full   chan *batch // closed at the end
	free   chan *batch
	err    error // once full is closed
}

// OpenListing starts a listing of d; nothing is read yet. The caller closes it.
func (d *Dir) OpenListing() *Listing { return &Listing{dir: d, batch: new(batch)} }

// Next returns the next entry, valid until the next call; nil at the end. It can
// wait for a registry: when ctx ends it gives ctx's error, and the next call
// goes on.
//
// Errors: those of Dir.List.
func (l *Listing) Next(ctx context.Context) (*Entry, error) {
	for l.at-l.before >= len(l.batch.entries) {
		if l.ended {
			return nil, l.err
		}
		if err := l.read(ctx); err != nil {
			return nil, err
		}
	}
	e := &l.batch.entries[l.at-l.before]
	l.at++
	return e, nil
}

// An offset says after which entry to go on: a hash of its name, by which it is
// found when others have come and gone, and the number of entries until then, for
// when it is gone itself. It means the same to all listings of one tree.
const (
	numberBits = 24 // of an offset; the other 38 are the hash
	maxNumber  = 1<<numberBits - 1
)

func (l *Listing) hash(name string) uint64 {
	return maphash.String(l.dir.fs.seed, name) >> (2 + numberBits)
}

// Offset tells where the entry stands that Next returned last, for Seek; 0 at the
// start. It is less than 1<<62.
func (l *Listing) Offset() uint64 {
	if l.at == l.before {
		return 0
	}
	name := l.batch.entries[l.at-l.before-1].Name
	return l.hash(name)<<numberBits | uint64(min(l.at, maxNumber))
}

// Seek goes on after the entry of that offset; if that is not there any more,
// near where it was. Going to the start reads the directory as it is then.
//
// Errors: ctx's.
func (l *Listing) Seek(ctx context.Context, offset uint64) error {
	number, hash := int(offset&maxNumber), offset>>numberBits
	if number <= l.before {
		l.rewind()
	}
	if number == 0 {
		return nil
	}
	same := func(_ int, name string) bool { return l.hash(name) == hash }
	there := func(n int, _ string) bool { return n == number }
	fromHere := l.before > 0
	found, err := l.find(ctx, same)
	if !found && err == nil && fromHere {
		l.rewind()
		found, err = l.find(ctx, same)
	}
	if !found && err == nil {
		l.rewind()
		_, err = l.find(ctx, there)
	}
	return err
}

// rewind begins anew.
func (l *Listing) rewind() {
	l.Close()
	*l = Listing{dir: l.dir, batch: new(batch)}
}

// find goes on after the first entry, from the piece at hand on, that is the one;
// else to the end.
func (l *Listing) find(ctx context.Context, is func(number int, name string) bool) (found bool, err error) {
	for {
		for i := range l.batch.entries {
			if l.at = l.before + i + 1; is(l.at, l.batch.entries[i].Name) {
				return true, nil
			}
		}
		if l.ended {
			return false, nil
		}
		if err := l.read(ctx); err != nil {
			return false, err
		}
	}
}

// Close ends the listing. A second Close does nothing.
func (l *Listing) Close() {
	if l.ahead != nil {
		l.ahead.end()
		l.ahead = nil
	}
}

// read takes the next piece in.
func (l *Listing) read(ctx context.Context) error {
	if l.ahead == nil {
		l.ahead = l.dir.read(ctx)
	}
	r := l.ahead
	select {
	case p, ok := <-r.full:
		if ok {
			l.before += len(l.batch.entries)
			r.free <- l.batch
			l.batch = p
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
const readAheadDepth = 2

// read starts a reading. It lives longer than the request that asks for it, so
// its context is its own. The caller ends it.
func (d *Dir) read(ctx context.Context) *readAhead {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// Nobody waits to put a piece into a channel: each has room for all.
	r := &readAhead{cancel: cancel, full: make(chan *batch, readAheadDepth+1), free: make(chan *batch, readAheadDepth+1)}
	r.free <- new(batch)
	go func() {
		defer close(r.full)
		r.err = backends.Guard(nil, func() error {
			_, err := d.batches(ctx, new(batch), func(p *batch) *batch {
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
func (r *readAhead) end() {
	r.cancel()
	for range r.full { // what is left is not wanted
	}
}
