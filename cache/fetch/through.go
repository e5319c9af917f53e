// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A through holds the last few pieces of a blob in memory while the disk has no room:
// readers are served, only not for long.
type through struct {
	d      *work
	mu     sync.Mutex // guards the field below
	pieces []*piece   // the one asked for last at the end
}

const (
	// PieceSize is how many bytes ReadThrough fetches at a time.
	PieceSize = 1 << 20
	maxPieces = 8 // bounds the memory of one blob
)

type piece struct {
	number int64
	done   chan struct{} // closed when the fields below are valid
	bytes  []byte
	err    error
}

// ReadThrough fills p, which must not cross a multiple of PieceSize, through memory.
// Errors: those of Await; ErrNoRoom if it takes the whole image to read a part of it.
func (d *Download) ReadThrough(ctx context.Context, p []byte, off int64) error {
	one, err := d.through.piece(off / PieceSize)
	if err != nil {
		return err
	}
	patience := d.Patience()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errNoProgress(patience)
	}
	if one.err != nil {
		return outward(one.err)
	}
	copy(p, one.bytes[off%PieceSize:])
	return nil
}

// InMemory reports whether readers may have got bytes that are not in the sink.
func (d *Download) InMemory() bool {
	d.through.mu.Lock()
	defer d.through.mu.Unlock()
	return len(d.through.pieces) > 0
}

// piece returns a piece, which is in memory or on its way.
func (t *through) piece(number int64) (*piece, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.pieces, func(c *piece) bool { return c.number == number })
	if i >= 0 {
		one := t.pieces[i]
		t.pieces = append(slices.Delete(t.pieces, i, i+1), one)
		return one, nil
	}
	one := &piece{number: number, done: make(chan struct{})}
	if !t.d.opts.Go(func() { t.fetch(one) }) {
		return nil, ErrClosed
	}
	if len(t.pieces) == maxPieces {
		t.pieces = slices.Delete(t.pieces, 0, 1)
	}
	t.pieces = append(t.pieces, one)
	return one, nil
}

func (t *through) fetch(one *piece) {
	defer close(one.done)
	off := one.number * PieceSize
	b := make([]byte, min(PieceSize, t.d.opts.Size-off))
	one.err = backends.Guard(t.d.opts.Log, func() error { return t.read(b, off) })
	if one.err == nil {
		one.bytes = b
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pieces = slices.DeleteFunc(t.pieces, func(o *piece) bool { return o == one })
}

// read fills b straight from the registry.
func (t *through) read(b []byte, off int64) error {
	d := t.d
	body := d.sources.best().Open(d.ctx, backends.TransferOptions{Off: off, N: int64(len(b)), Demanded: true})
	defer body.Close()
	_, err := io.ReadFull(body, b)
	switch {
	case d.ctx.Err() != nil:
		return ErrClosed
	case errors.Is(err, errors.ErrUnsupported):
		return ErrNoRoom
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	return err
}
