// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const (
	bufferSize = 256 << 10
	// A body that broke off is asked for again, from where it ended. It may do so
	// any number of times as long as bytes come; this many times without.
	maxRetries = 5
	retryMin   = 100 * time.Millisecond
	// fullPause is how long the disk counts as full before it is tried again.
	fullPause = 10 * time.Second
)

var (
	buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

	errStalled     = errors.New("the transfer stalled")
	errNoRanges    = errors.New("the service sends only whole images")
	errNothingLeft = errors.New("others fetch the rest")
)

// settle draws the conclusions from how a flight ended. Call with mu held.
func (d *data) settle(f *flight, err error) {
	switch {
	case err == nil:
		d.trouble = trouble{}
	case errors.Is(err, errNoRoom):
		d.full = time.Now().Add(fullPause)
	case errors.Is(err, errNoRanges) || d.ctx.Err() != nil:
	case f.urgent:
		d.trouble.meet(err)
	}
}

// fetch brings the flight to its end.
// Errors: errNoRoom, errNoRanges; those of Client.Open; of the local disk.
func (d *data) fetch(f *flight) error {
	if err := d.makeRoom(min(f.end-f.off, maxFill)); err != nil {
		return err
	}
	for misses := 0; ; {
		before := f.pos
		src := d.source()
		err := d.attempt(f, src)
		if f.pos > before {
			misses = 0
		}
		switch {
		case d.ctx.Err() != nil:
			return ErrClosed
		case f.pos == f.end, errors.Is(err, errNothingLeft):
			return nil
		case errors.Is(err, errNoRanges):
			d.wholeOnly.Store(true)
			src.lane.noRanges()
			return err
		case !passing(err) && d.demote(src):
			continue
		case !passing(err):
			return err
		}
		if misses++; misses > maxRetries {
			return gaveUp(err)
		}
		if err := sleep(d.ctx, retryMin<<misses); err != nil {
			return ErrClosed
		}
	}
}

// attempt makes one request for what is left of the flight.
func (d *data) attempt(f *flight, src source) error {
	t := d.board(f, src.lane)
	if err := src.lane.enter(d.ctx, t); err != nil {
		return err
	}
	defer src.lane.leave(t)
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	off, n := f.pos, f.end-f.pos
	if f.whole {
		off, n = 0, f.end
	}
	body, err := src.client.Open(ctx, src.image, off, n)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && off > 0:
		return errNoRanges
	case err != nil:
		return &openError{err}
	}
	defer body.Close()
	if off > 0 {
		src.lane.ranged.Store(true)
	}
	// The client sees to it that requests are answered; a body that stays away
	// is for us to notice.
	quiet := d.item.cache.opts.Patience / 3
	stall := time.AfterFunc(quiet, func() { cancel(errStalled) })
	defer stall.Stop()
	yield := func() bool { return src.lane.yield(ctx, t) }
	err = d.receive(f, &alive{body, stall, quiet}, f.pos-off, yield)
	if errors.Is(context.Cause(ctx), errStalled) {
		err = errStalled
	}
	return err
}

// An openError is one that Client.Open gave after its own retries: to ask once
// more would be too much.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

// alive puts off the stall timer with each read.
type alive struct {
	io.Reader
	stall *time.Timer
	quiet time.Duration
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.stall.Reset(a.quiet)
	}
	return n, err
}

// board gives the flight a ticket for its next attempt.
func (d *data) board(f *flight, l *lane) *ticket {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.lane, f.ticket = l, newTicket(f.urgent)
	return f.ticket
}

// receive writes body into the file, after its first skip bytes, which are here.
// It calls yield before each read.
func (d *data) receive(f *flight, body io.Reader, skip int64, yield func() bool) error {
	if _, err := io.CopyN(io.Discard, body, skip); err != nil {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	start, first, yielded := time.Now(), f.pos, false
	for f.pos < f.end {
		yielded = yield() || yielded
		n, err := body.Read(buf[:min(bufferSize, f.end-f.pos)])
		if werr := d.write(f, buf[:n]); werr != nil {
			return werr
		}
		switch {
		case f.pos == f.end:
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: the answer ended at byte %d", backends.ErrUnavailable, f.pos)
		case err != nil:
			return err
		}
	}
	if !yielded {
		d.measure(f.pos-first, time.Since(start))
	}
	return nil
}

// write puts p at the watermark, without what the flight does not own.
func (d *data) write(f *flight, p []byte) error {
	for len(p) > 0 {
		n := min(int64(len(p)), chunkSize-f.pos%chunkSize)
		switch mine, left := d.owns(f); {
		case mine:
			if err := d.writeFile(p[:n], f.pos); err != nil {
				return err
			}
		case !left:
			return errNothingLeft
		}
		d.advance(f, n)
		p = p[n:]
	}
	return nil
}

// writeFile writes to the file; when the disk is full it evicts and tries again.
// Errors: errNoRoom; those of the local disk.
func (d *data) writeFile(p []byte, off int64) error {
	_, err := d.written.WriteAt(p, off)
	if isFull(err) && d.item.cache.evictFor(int64(len(p))) {
		_, err = d.written.WriteAt(p, off)
	}
	switch {
	case err == nil:
		d.item.cache.grew(int64(len(p)))
		return nil
	case isFull(err):
		d.item.cache.opts.Log.Warn("no room for the image cache", "dir", d.item.cache.dir, "err", err)
		return errNoRoom
	}
	return localError("write", err)
}

// measure notes how fast a stream was, see fillSize.
func (d *data) measure(n int64, took time.Duration) {
	if n < chunkSize/2 {
		return
	}
	rate := float64(n) / max(took.Seconds(), 1e-6)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		d.rate = rate
	}
	d.rate += (rate - d.rate) / 4
}

// source returns the best place to fetch from.
func (d *data) source() source {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sources[0]
}

// demote drops a source that cannot serve the blob any more (deleted there,
// access withdrawn), if there is another one.
func (d *data) demote(s source) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sources) == 1 {
		return false
	}
	if d.sources[0].same(s) {
		d.sources = append([]source(nil), d.sources[1:]...)
	}
	return true
}

// passing reports whether a request for the rest may succeed at once.
func passing(err error) bool {
	var opened *openError
	return !errors.As(err, &opened) && mayPass(err)
}

// mayPass reports whether an error is none for ever.
func mayPass(err error) bool {
	for _, s := range []error{errStalled, io.ErrUnexpectedEOF, backends.ErrUnavailable, backends.ErrRateLimited, context.DeadlineExceeded} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// gaveUp is err in the sentinels of this package's callers.
func gaveUp(err error) error {
	switch {
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, backends.ErrUnavailable):
		return fmt.Errorf("%w: answers end before their length: %w", backends.ErrUnavailable, err)
	}
	return err
}

// sleep waits for a random time of at most 2·d, d on average.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(rand.N(2 * d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
