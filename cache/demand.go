// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	maxWindow = 16 << 20 // fetched ahead of a sequential reader
	minPiece  = 1 << 20  // of one request for a reader, where so much is missing: 8 ms at 1 Gbit/s
	maxPiece  = 4 << 20  // of one request for a reader: a window is fetched in parallel pieces
	slack     = 4 << 20  // the kernel's read-ahead comes out of order: still sequential
	// A demanded chunk this far beyond the watermark of the request that covers
	// it is asked for a second time …
	stealDistance = 2 << 20
	// … as long as no more than 1/stealShare of the blob was.
	stealShare = 64
	// A read that begins this near to the start is somebody looking at what kind
	// of file it is: the hints are worth asking for.
	probe = 128 << 10
	// Who has read so much in sequence wants the whole image: from its start, and
	// from anywhere. Who mounts or inspects one reads less, the kernel's first
	// read-ahead included.
	keenAtStart = 1 << 20
	keen        = 8 << 20
)

// A window watches one handle's reads and tells how far to fetch ahead of them:
// nothing at first, then as much as was read in sequence.
type window struct {
	mu    sync.Mutex // guards the fields below
	first int64      // where the sequence began
	next  int64      // where a sequential read would begin
	run   int64      // bytes read in sequence
	asked int64      // where what was asked for ahead ends
}

// note takes a read of [off, end) into account. It returns up to where to fetch
// ahead, or end if there is nothing to do now.
func (w *window) note(off, end int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if off > w.next+slack || off < w.next-slack {
		w.first, w.next, w.run, w.asked = off, end, 0, 0
		return end
	}
	if end > w.next {
		w.run += end - max(off, w.next)
		w.next = end
	}
	size := int64(0)
	for s := int64(minPiece); s <= min(w.run, maxWindow); s *= 2 {
		size = s
	}
	// Half a window at a time, so that requests do not get small.
	if ahead := end + size; ahead > w.asked && ahead-max(w.asked, end) >= size/2 && size > 0 {
		w.asked = ahead
		return ahead
	}
	return end
}

// keen reports whether the reader seems to read all of the blob.
func (w *window) keen() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.run >= keen || w.first == 0 && w.next >= keenAtStart
}

// await returns when the bytes [off, end) can be read from the file, and starts
// fetching those up to ahead. Errors: those of Blob.ReadAtContext; errNoRoom if
// they cannot be put into the file.
func (d *data) await(ctx context.Context, off, end, ahead int64) error {
	r := newReader()
	for {
		f, target, err := d.need(r, off, end, min(ahead, d.size))
		if err != nil || f == nil {
			return err
		}
		if err := d.wait(ctx, r, f, target); err != nil {
			return err
		}
	}
}

// need starts what is missing of [off, ahead). It returns the flight that brings
// the first byte of [off, end) that cannot be read yet, and how far it must get;
// nil if all can be read.
func (d *data) need(r *reader, off, end, ahead int64) (*flight, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frontier = end
	first := d.absent(off, end)
	if d.phase.Load() == whole {
		return nil, 0, nil
	}
	switch err := d.usable(r.began); {
	case err == nil:
		d.launch(off, max(end, ahead))
	case d.phase.Load() == partial && (first < 0 || d.owner[chunks.Of(first)] != nil):
		// What is here, or on its way, needs no luck.
	default:
		return nil, 0, err
	}
	if first < 0 {
		return nil, 0, nil
	}
	c := chunks.Of(first)
	if f := d.owner[c]; f != nil {
		if f = d.hurry(f, c); f != nil {
			return f, min(end, (c+1)*chunks.Size), nil
		}
	} else if f = d.wholeFlight(); f != nil {
		return f, d.size + 1, nil // it has passed the chunk: after it, another one
	}
	return nil, 0, ErrClosed // nothing could be started
}

// usable says why nothing can be fetched now for who began to wait then. Call with
// mu held.
func (d *data) usable(began time.Time) error {
	switch {
	case d.phase.Load() == dead:
		return d.failure
	case d.idle || d.ctx.Err() != nil:
		return ErrClosed
	case time.Now().Before(d.full):
		return errNoRoom
	}
	return d.trouble.now(began)
}

// absent returns the first byte of [off, end) that cannot be read yet, or -1.
// Call with mu held.
func (d *data) absent(off, end int64) int64 {
	for c := chunks.Of(off); c*chunks.Size < end; c++ {
		if d.have.Has(c) {
			continue
		}
		if f := d.owner[c]; f == nil || f.pos < min(end, (c+1)*chunks.Size) {
			return max(off, c*chunks.Size)
		}
	}
	return -1
}

// launch starts flights for what is missing of [from, to), and hurries up those
// under way there. Call with mu held.
func (d *data) launch(from, to int64) {
	if d.streamed() {
		if f := d.claimWhole(true); f != nil {
			d.start(f)
		}
	} else {
		for {
			a, b, ok := d.gap(from, to, maxPiece)
			if ok && b-a < minPiece {
				a, b, ok = d.gap(a, min(a+minPiece, d.size), minPiece)
			}
			if !ok || !d.start(d.claim(a, b, true)) {
				break
			}
		}
	}
	for c := chunks.Of(from); c < chunks.Count(to); c++ {
		if f := d.owner[c]; f != nil {
			f.promote()
		}
	}
}

// streamed reports whether the blob must be fetched in one stream from its
// start. Call with mu held.
func (d *data) streamed() bool {
	return d.wholeOnly.Load() || d.sources[0].sched.Ranges.None()
}

// claimWhole makes the one flight of a service without ranges, nil if it is under
// way already or nothing is missing. Call with mu held.
func (d *data) claimWhole(urgent bool) *flight {
	if f := d.wholeFlight(); f != nil {
		// What others gave up and it has not passed yet, it can bring too.
		for c := chunks.Count(f.pos); c < chunks.Count(d.size); c++ {
			if !d.have.Has(c) && d.owner[c] == nil {
				d.owner[c] = f
			}
		}
		return nil
	}
	if _, _, ok := d.gap(0, d.size, chunks.Size); !ok {
		return nil
	}
	f := d.claim(0, d.size, urgent)
	f.whole, f.demanded = true, false
	d.stream = f
	return f
}

// wholeFlight returns the stream of the whole, nil if there is none under way.
// Call with mu held.
func (d *data) wholeFlight() *flight {
	if d.stream == nil || d.stream.landed() {
		return nil
	}
	return d.stream
}

// start lets a claimed flight go.
func (d *data) start(f *flight) bool { return d.startThen(f, func() {}) }

// startThen is start with something to do after the landing. It reports false,
// and undoes the claim, when the cache is closing. Call with mu held.
func (d *data) startThen(f *flight, after func()) bool {
	fly := func() {
		d.land(f, backends.Guard(d.item.cache.opts.Log, func() error { return d.fetch(f) }))
		after()
	}
	if d.item.cache.spawn(fly) {
		return true
	}
	d.disown(f)
	d.flights--
	close(f.done)
	return false
}

// hurry returns the flight to wait for to get chunk c: f, or another one where f
// still has far to go and the bytes may be asked for twice. Call with mu held.
func (d *data) hurry(f *flight, c int64) *flight {
	at := c * chunks.Size
	far := at-f.pos > max(stealDistance, 2*d.inTransit()) // else f would be there as early
	if !far || f.whole || (d.stolen+minPiece)*stealShare > d.size {
		return f
	}
	end := at
	for ; end < min(at+minPiece, d.size) && d.owner[c] == f; c++ {
		delete(d.owner, c)
		end = min((c+1)*chunks.Size, d.size)
	}
	d.stolen += end - at
	thief := d.claim(at, end, true)
	if !d.start(thief) {
		return nil
	}
	return thief
}

// demanded is called before each read of what is not all here. Unless the reader
// only looks, it sees to it that the rest is fetched too: soon, or at once where
// the reader seems to want it.
func (d *data) demanded(off int64, w *window, quiet bool) {
	if off < probe {
		d.hint()
	}
	opts := d.item.cache.opts
	if quiet || opts.NoBackground {
		return
	}
	now := w.keen()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle || d.ctx.Err() != nil || d.usable(time.Now()) != nil {
		return
	}
	if now {
		d.hasten()
	}
	if now && d.filler == nil {
		d.frontier = off
		if f := d.startFiller(); f != nil {
			f.sure = false
		}
	}
	if !d.armed && (d.filler == nil || !d.filler.sure) {
		d.armed = true
		time.AfterFunc(opts.FillDelay, d.autoFill)
	}
}

// autoFill runs when the grace period after the first demanded read is over.
// Where the blob is closed again by then, somebody only looked into it (file,
// head, a file manager): the rest is not fetched.
func (d *data) autoFill() {
	open := d.item.open(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	if !open || d.phase.Load() != partial {
		return
	}
	if f := d.startFiller(); f != nil {
		f.sure = true
	}
}

var errNoRoom = errors.New("cache: no room on the disk")
