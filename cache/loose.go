// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// A loose holds the last few chunks of a blob in memory, while the disk has no
// room: readers are served all the same, only not for long.
type loose struct {
	mu     sync.Mutex    // guards the field below
	chunks []*looseChunk // the one asked for last at the end
}

const (
	looseSize = 1 << 20 // of one request
	maxLoose  = 8       // bounds the memory of one blob
)

type looseChunk struct {
	number int64
	done   chan struct{} // closed when the fields below are valid
	bytes  []byte
	err    error
}

// readLoose fills p chunk by chunk, from the file or through memory.
func (d *data) readLoose(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		c := at / looseSize
		part := p[done:min(int64(len(p)), (c+1)*looseSize-off)]
		n, err := len(part), error(nil)
		if d.has(at, at+int64(n)) {
			n, err = readFile(d.file.Load(), part, at)
		} else {
			err = d.copyLoose(ctx, part, c, at-c*looseSize)
			if err != nil && d.phase.Load() == whole {
				continue // it came in otherwise
			}
			err = cmp.Or(d.deadErr(), err)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func (d *data) copyLoose(ctx context.Context, p []byte, number, off int64) error {
	c, err := d.looseChunk(number)
	if err != nil {
		return err
	}
	patience := d.patience()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errNoProgress(patience)
	}
	if c.err != nil {
		return outward(c.err)
	}
	copy(p, c.bytes[off:])
	return nil
}

// looseChunk returns the chunk, which is in memory or on its way.
func (d *data) looseChunk(number int64) (*looseChunk, error) {
	l := &d.loose
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.chunks, func(c *looseChunk) bool { return c.number == number })
	if i >= 0 {
		c := l.chunks[i]
		l.chunks = append(slices.Delete(l.chunks, i, i+1), c)
		return c, nil
	}
	c := &looseChunk{number: number, done: make(chan struct{})}
	if !d.item.cache.spawn(func() { d.fetchLoose(c) }) {
		return nil, ErrClosed
	}
	if len(l.chunks) == maxLoose {
		l.chunks = slices.Delete(l.chunks, 0, 1)
	}
	l.chunks = append(l.chunks, c)
	return c, nil
}

func (d *data) fetchLoose(c *looseChunk) {
	defer close(c.done)
	off := c.number * looseSize
	b := make([]byte, min(looseSize, d.size-off))
	c.err = backends.Guard(d.item.cache.opts.Log, func() error { return d.readFrom(b, off) })
	if c.err == nil {
		c.bytes = b
		return
	}
	d.loose.mu.Lock()
	defer d.loose.mu.Unlock()
	d.loose.chunks = slices.DeleteFunc(d.loose.chunks, func(o *looseChunk) bool { return o == c })
}

// readFrom fills b straight from the registry.
func (d *data) readFrom(b []byte, off int64) error {
	src := d.source()
	slot := src.sched.Ask(sched.Demanded)
	if slot.Wait(d.ctx) != nil {
		return ErrClosed
	}
	defer slot.Release()
	body, err := src.client.Open(backends.Demanded(d.ctx, nil), src.image, off, int64(len(b)))
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return errNoRoom // it takes the whole image to read a part of it
	case err != nil:
		return err
	}
	defer body.Close()
	if _, err := io.ReadFull(body, b); err != nil {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	return nil
}
