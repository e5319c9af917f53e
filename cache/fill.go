// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"time"
)

const (
	minFill = 1 << 20 // of one background request
	maxFill = 8 << 20
	// fillTime is how long one background request should take: a reader may have
	// to wait for it.
	fillTime = 500 * time.Millisecond
	// maxFillRow is how often in a row the filler fails before it gives up; the
	// next read starts another one.
	maxFillRow = 6
)

// A filler fetches all of a blob that is missing, from the last reader's
// position to the end and then from the start.
type filler struct {
	done chan struct{} // closed at its end
	err  error         // valid once done; nil if nothing was missing any more
}

// startFiller returns the filler of d, which it starts if none runs. It returns
// nil if there is nothing to fetch or the cache is closing. Call with mu held.
func (d *data) startFiller() *filler {
	if d.filler != nil {
		return d.filler
	}
	if d.idle || d.phase.Load() != partial || d.complete() {
		return nil
	}
	f := &filler{done: make(chan struct{})}
	if !d.item.cache.spawn(func() { d.runFiller(f) }) {
		return nil
	}
	d.filler = f
	return f
}

func (d *data) runFiller(f *filler) {
	err := d.fill()
	d.mu.Lock()
	d.filler, f.err = nil, err
	d.mu.Unlock()
	close(f.done)
	d.kickKeeper()
}

// fill returns when nothing is missing, or with what keeps it from going on.
func (d *data) fill() error {
	var failed trouble
	running := map[*flight]bool{}
	landed := make(chan *flight)
	for {
		for len(running) < d.item.cache.opts.Streams {
			f, err := d.fillNext(landed)
			if err != nil {
				return d.drain(running, landed, err)
			}
			if f == nil {
				break
			}
			running[f] = true
		}
		if len(running) == 0 {
			other := d.anyFlight()
			if other == nil {
				return d.drain(running, landed, nil)
			}
			<-other.done
			continue
		}
		f := <-landed
		delete(running, f)
		switch {
		case f.err == nil:
			failed = trouble{}
			continue
		case !d.worthWhile(f.err, failed.row):
			return d.drain(running, landed, f.err)
		}
		failed.meet(f.err)
		if err := sleep(d.ctx, time.Until(failed.until)); err != nil {
			return d.drain(running, landed, ErrClosed)
		}
	}
}

// drain waits for the filler's own flights.
func (d *data) drain(running map[*flight]bool, landed chan *flight, err error) error {
	for range running {
		<-landed
	}
	return err
}

// fillNext starts a flight for the next missing range; nil if there is none.
func (d *data) fillNext(landed chan<- *flight) (*flight, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase.Load() != partial || d.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if time.Now().Before(d.full) {
		return nil, errNoRoom
	}
	var f *flight
	if d.streamed() {
		if f = d.claimWhole(false); f == nil {
			return nil, nil
		}
	} else {
		from, to, ok := d.gap(d.frontier, d.size, d.fillSize())
		if !ok {
			if from, to, ok = d.gap(0, d.size, d.fillSize()); !ok {
				return nil, nil
			}
		}
		f = d.claim(from, to, false)
	}
	if !d.startThen(f, func() { landed <- f }) {
		return nil, ErrClosed
	}
	return f, nil
}

// fillSize is how much one background request asks for: what comes in half a
// second, so that a reader who has to wait for it waits no longer than that.
func (d *data) fillSize() int64 {
	if d.rate == 0 {
		return 2 * minFill
	}
	n := int64(d.rate * fillTime.Seconds())
	return max(minFill, min(n-n%chunkSize, maxFill))
}

// anyFlight returns a flight under way, nil if there is none.
func (d *data) anyFlight() *flight {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.owner {
		return f
	}
	return d.wholeFlight()
}

// worthWhile reports whether the filler should try again after err, when it had
// failed row times before without success between.
func (d *data) worthWhile(err error, row int) bool {
	var opened *openError
	switch {
	case d.ctx.Err() != nil || d.phase.Load() != partial:
		return false
	case errors.Is(err, errNoRanges):
		return true
	case errors.As(err, &opened):
		return row < 1 && mayPass(err) // the client has tried for long
	}
	return row < maxFillRow && mayPass(err)
}

// wholly is Blob.Wait.
func (d *data) wholly(ctx context.Context, progress func(have int64)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		d.mu.Lock()
		f := d.startFiller()
		d.mu.Unlock()
		var filled <-chan struct{}
		if f != nil {
			filled = f.done
		}
		select {
		case <-d.settled:
			progress(d.present())
			return d.deadErr()
		case <-d.item.cache.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-filled:
			if f.err != nil {
				return outward(f.err)
			}
		case <-tick.C:
			progress(d.present())
		}
	}
}
