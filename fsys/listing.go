// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"hash/maphash"

	"github.com/sregfs/sregfs/backends"
)

// A Listing reads a directory entry by entry, and can seek in it. It keeps a fixed number
// of batches, whatever the size of the directory, and reads one batch ahead; seeking back
// further reads the directory again. It is not safe for concurrent use.
type Listing struct {
	dir    *Dir
	batch  *batch // valid until the next one is received
	before int    // entries before piece
	at     int    // entries handed out
	ended  bool   // nothing comes after piece
	err    error  // but this

	ahead *readAhead // nil before the first piece and after the last
}

// A readAhead reads a directory in a goroutine, which ends with it.
type readAhead struct {
	cancel context.CancelFunc
	full   chan *batch // closed at the end
	free   chan *batch
	err    error // once full is closed
}

// OpenListing starts a listing of d; nothing is read yet. The caller closes it.
func (d *Dir) OpenListing() *Listing { return &Listing{dir: d, batch: new(batch)} }

// Next returns the next entry, valid until the next call; nil at the end. It can wait for
// a registry. When ctx ends it returns ctx's error, and the next call continues.
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

// An offset names the entry after which to continue: by a hash of its name, which stays
// valid when other entries come and go, and by its number, for the case that the entry
// itself is gone. It means the same to all listings of one tree.
const (
	numberBits = 24 // of an offset; the other 38 are the hash
	maxNumber  = 1<<numberBits - 1
)

func (l *Listing) hash(name string) uint64 {
	return maphash.String(l.dir.fs.seed, name) >> (2 + numberBits)
}

// Offset returns the offset of the entry that Next returned last, for Seek; 0 at the
// start. It is less than 1<<62.
func (l *Listing) Offset() uint64 {
	if l.at == l.before {
		return 0
	}
	name := l.batch.entries[l.at-l.before-1].Name
	return l.hash(name)<<numberBits | uint64(min(l.at, maxNumber))
}

// Seek continues after the entry of that offset; if it is not there any more, near where
// it was. Seeking to the start reads the directory again.
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

// rewind goes back to the start.
func (l *Listing) rewind() {
	l.Close()
	*l = Listing{dir: l.dir, batch: new(batch)}
}

// find continues after the first entry for which is returns true, looking from the
// current batch on; if there is none, at the end.
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

// read receives the next batch.
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
		_ = backends.Raise(r.err) // a panic of the goroutine goes on in the caller's, which recovers
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readAheadDepth is the number of batches besides the caller's: one that is full and one
// that is being filled.
const readAheadDepth = 2

// read starts a readAhead. It outlives the request that starts it, so it has a context of
// its own. The caller ends it.
func (d *Dir) read(ctx context.Context) *readAhead {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// Sending never blocks: each channel has room for all batches.
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
	for range r.full { // discarded
	}
}
