// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"
)

// A body is what Client.Open returns: it counts, and holds a slot of its client
// until it was read to the end or closed. Close may be called while Read runs.
type body struct {
	src     io.ReadCloser
	release func()
	log     *slog.Logger
	fail    func(error) error // puts the operation and the name on an error
	want    int64             // bytes still to come; < 0: all there are
	exact   bool              // fewer than want is an error
	err     error             // that every further Read gives
	closed  atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closed.Load():
		return 0, fs.ErrClosed
	case b.want >= 0 && int64(len(p)) > b.want:
		p = p[:b.want]
	}
	var n int
	err := Guard(b.log, func() (err error) { n, err = b.src.Read(p); return err })
	if b.want >= 0 {
		b.want -= int64(n)
	}
	switch {
	case b.want == 0:
		b.err = io.EOF
	case errors.Is(err, io.EOF) && b.exact:
		b.err = b.fail(io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		b.err = io.EOF
	case err != nil:
		b.err = b.fail(err)
	}
	if b.err != nil {
		_ = b.Close() // frees the slot for others, though the caller may close late
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// Close releases the body. A second Close does nothing.
func (b *body) Close() error {
	if !b.closed.Swap(true) {
		b.src.Close()
		b.release()
	}
	return nil
}

// bodyError says what an error in mid-body means. A body that ended before its
// own Content-Length is io.ErrUnexpectedEOF, as one that ends before img.Size.
func bodyError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return classify(err)
}
