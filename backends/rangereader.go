// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
)

// A RangeReader reads an image of known size where it is, without keeping any of it. Who
// reads in order makes one request: a read goes on where an earlier one ended. ReadAt may be
// called from many goroutines at once; Close ends them.
type RangeReader struct {
	c      *Client
	img    Image
	ctx    context.Context //nolint:containedctx // io.ReaderAt takes none
	cancel context.CancelFunc

	mu   sync.Mutex // guards the fields below
	idle []*placed  // transfers that nobody reads, the last used one at the end
	err  error      // with which the last read failed
}

// A placed transfer is one whose next byte is at off.
type placed struct {
	*Transfer
	off int64
}

// maxIdle is how many transfers are kept to go on from. Each holds a slot.
const maxIdle = 2

// RangeReader returns a reader of img, which ends with ctx. It makes no request before
// it is read.
func (c *Client) RangeReader(ctx context.Context, img Image) *RangeReader {
	ctx, cancel := context.WithCancel(ctx)
	return &RangeReader{c: c, img: img, ctx: ctx, cancel: cancel}
}

// ReadAt implements io.ReaderAt.
//
// Errors: io.EOF; those of Client.Open, errors.ErrUnsupported among them if the service gives
// no ranges; ctx's.
func (r *RangeReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	rest := max(r.img.Size-off, 0)
	short := int64(len(p)) > rest
	p = p[:min(int64(len(p)), rest)]
	if len(p) == 0 && short {
		return 0, io.EOF
	}
	t := r.at(off)
	n, err := io.ReadFull(t, p)
	t.off += int64(n)
	if err != nil {
		t.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.ErrUnexpectedEOF
		}
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		return n, err
	}
	r.keep(t)
	if short {
		return n, io.EOF
	}
	return n, nil
}

// at returns a transfer whose next byte is at off.
func (r *RangeReader) at(off int64) *placed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.idle, func(t *placed) bool { return t.off == off }); i >= 0 {
		t := r.idle[i]
		r.idle = slices.Delete(r.idle, i, i+1)
		return t
	}
	return &placed{off: off, Transfer: r.c.Transfer(r.ctx, r.img, TransferOptions{
		Off: off, N: r.img.Size - off, Resume: func() bool { return true }, Silence: r.c.Timeout() / 3,
	})}
}

// keep puts a transfer back, unless it is at its end.
func (r *RangeReader) keep(t *placed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.off >= r.img.Size || r.ctx.Err() != nil {
		t.Close()
		return
	}
	r.idle = append(r.idle, t)
	if len(r.idle) > maxIdle {
		r.idle[0].Close()
		r.idle = slices.Delete(r.idle, 0, 1)
	}
}

// Err returns the error of the last read that failed, nil if none did.
func (r *RangeReader) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close ends what is under way.
func (r *RangeReader) Close() {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.idle {
		t.Close()
	}
	r.idle = nil
}
