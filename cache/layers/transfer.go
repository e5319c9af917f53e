// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A transfer is a range of the file that is being made.
type transfer struct {
	ctx    context.Context //nolint:containedctx // of all that it needs
	image  *Image
	src    Source
	opts   backends.TransferOptions
	pos    int64
	end    int64
	begun  time.Time
	first  int64
	region int // the layer that pos lies in, -1 for none
	err    error

	urgent atomic.Bool
	mu     sync.Mutex // guards the field below
	body   *body      // of the layer, if it is read now

	file   *os.File // another one that has the tar; nil if none has
	fileAt int64    // where
	asked  bool     // whether there is one
	packed packed   // of a layer with a table of contents
	stream *stream
	at     int64  // where in the tar the next chunk begins that the stream gives
	buf    []byte // a chunk
	left   []byte // what of it was not read yet
}

// Read implements io.Reader.
func (t *transfer) Read(p []byte) (int, error) {
	for len(t.left) == 0 {
		if t.pos >= t.end {
			return 0, io.EOF
		}
		if t.err != nil {
			return 0, t.err
		}
		if err := t.fill(); err != nil {
			t.err = t.image.failed(t.src, err)
		}
	}
	n := copy(p, t.left[:min(int64(len(t.left)), t.end-t.pos)])
	t.left = t.left[n:]
	t.pos += int64(n)
	return n, nil
}

// fill makes left what stands at pos, up to the end of its chunk.
func (t *transfer) fill() error {
	if abandoned(t.opts) {
		return fetch.ErrClosed
	}
	if t.buf == nil {
		t.buf = make([]byte, chunks.Size)
	}
	if t.begun.IsZero() {
		defer func() { t.begun, t.first = time.Now(), t.pos }()
	}
	if region, _, _ := t.image.partOf(t.pos); region != t.region {
		t.Close()
		t.region, t.asked = region, false
	}
	if t.region < 0 {
		made, err := t.image.build(t.ctx, t.src, t.opts)
		if err != nil {
			return err
		}
		t.left = t.buf[:chunks.Size-t.pos%chunks.Size]
		clear(t.left)
		return made.fill(t.left, t.pos, t.expand)
	}
	off := t.pos - t.image.plan.Layers[t.region].Offset
	b, err := t.tar(off / chunks.Size * chunks.Size)
	if err == nil {
		t.left = b[off%chunks.Size:]
	}
	return err
}

// abandoned reports whether what was made for a reader has none any more: layers are large. What
// is to come in nevertheless, the background brings.
func abandoned(opts backends.TransferOptions) bool {
	return opts.Demanded && opts.Resume != nil && !opts.Resume()
}

// tar returns the chunk of the tar that begins at an offset, and zeros behind the end of the tar.
func (t *transfer) tar(off int64) ([]byte, error) {
	l := t.image.layers[t.region]
	clear(t.buf)
	if size, ok := l.known(); ok && off >= size {
		return t.buf, nil
	}
	if l.packed {
		return t.unpack(l, off)
	}
	if t.copied(l, off) {
		return t.buf, nil
	}
	if t.stream != nil && t.at != off {
		t.stop()
	}
	if t.stream == nil {
		if err := t.start(l, off, t.tarEnd()); err != nil {
			return nil, err
		}
	}
	for {
		n, err := t.stream.next(t.buf)
		at := t.at
		t.at += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			t.stop()
			clear(t.buf[n:])
			if at < off {
				clear(t.buf)
			}
			return t.buf, nil
		case err != nil:
			t.stop()
			return nil, err
		case at >= off:
			return t.buf, nil
		}
	}
}

// copied reads a chunk of the tar out of another file that has it, and reports whether that
// is the right one.
func (t *transfer) copied(l *layer, off int64) bool {
	if !t.asked {
		t.asked = true
		t.file, t.fileAt = l.holder(t.image.opts.Whole)
	}
	size, whole := l.known()
	if t.file == nil || !whole {
		return false
	}
	b := t.buf[:min(size-off, chunks.Size)]
	_, err := t.file.ReadAt(b, t.fileAt+off)
	sum := sha256.Sum256(b)
	if known, ok := l.sum(chunkOf(off)); err == nil && ok && bytes.Equal(sum[:], known) {
		return true
	}
	t.leave()
	clear(t.buf)
	return false
}

// leave closes the other file.
func (t *transfer) leave() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// tarEnd returns where in the tar the transfer ends.
func (t *transfer) tarEnd() int64 {
	return min(t.end-t.image.plan.Layers[t.region].Offset, t.image.layers[t.region].bound)
}

// start opens the layer at the best point for a place in its tar.
func (t *transfer) start(l *layer, off, to int64) error {
	held, err := l.seize(t.ctx, to)
	if err != nil {
		return err
	}
	p, end, err := l.start(off, to, held)
	if err == nil {
		t.mu.Lock()
		t.body = t.newBody(p.Point.In, end)
		t.mu.Unlock()
		t.stream, err = l.open(p, t.body, held)
	}
	if err != nil {
		if held {
			<-l.extender
		}
		return err
	}
	t.at = p.Point.Out
	return nil
}

// newBody opens a range of the layer as the registry has it. Call with mu held.
func (t *transfer) newBody(from, to int64) *body {
	open := t.image.opener(t.src, t.region, t.opts)
	return newBody(t.ctx, from, to, func(ctx context.Context, off, n int64) *backends.Transfer {
		return open(ctx, off, n, t.urgent.Load())
	})
}

// stop ends the stream.
func (t *transfer) stop() {
	t.packed.stop(t)
	s := t.stream
	if s == nil {
		return
	}
	s.stop()
	if s.extends {
		<-s.layer.extender
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stream, t.body = nil, nil
}

// Close ends the transfer.
func (t *transfer) Close() {
	t.stop()
	t.leave()
}

// Promote implements fetch.Transfer.
func (t *transfer) Promote() { t.setUrgent(true, (*backends.Transfer).Promote) }

// Demote implements fetch.Transfer.
func (t *transfer) Demote() { t.setUrgent(false, (*backends.Transfer).Demote) }

func (t *transfer) setUrgent(urgent bool, tell func(*backends.Transfer)) {
	t.urgent.Store(urgent)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.body != nil {
		t.body.each(tell)
	}
}

// Speed implements fetch.Transfer.
func (t *transfer) Speed() (n int64, took time.Duration, yielded bool) {
	return t.pos - t.first, time.Since(t.begun), t.begun.IsZero() || t.region < 0
}

// Ending implements fetch.Transfer.
func (t *transfer) Ending() {}

// Surplus implements fetch.Transfer.
func (t *transfer) Surplus() bool { return false }

// Hole implements fetch.Transfer.
func (t *transfer) Hole() int64 {
	if len(t.left) > 0 || t.pos%chunks.Size != 0 {
		return 0
	}
	to, _, ok := t.image.NextData(t.pos)
	if to = min(to, t.end); !ok {
		to = t.end
	}
	if t.region >= 0 { // what of the tar is not known is data
		off := t.pos - t.image.plan.Layers[t.region].Offset
		if size, ok := t.image.layers[t.region].known(); !ok || off < size {
			return 0
		}
		_, _, end := t.image.partOf(t.pos)
		to = min(end, t.end)
	}
	if to == t.image.plan.Size {
		return to - t.pos
	}
	return (to - t.pos) / chunks.Size * chunks.Size
}

// Skip implements fetch.Transfer.
func (t *transfer) Skip(n int64) { t.pos += n }

var _ fetch.Transfer = (*transfer)(nil)

// errKind reports whether an error is of the image itself, and not of its registry or the way
// there.
func errKind(err error) (unfit, corrupt bool) {
	return errors.Is(err, vsif.ErrLayer), errors.Is(err, backends.ErrCorrupt)
}

// expand fills what of p, which stands at an offset of the file, is of a sparse file. Its
// bytes are read out of its layer once more: few images have any.
func (t *transfer) expand(e vsif.Expansion, p []byte, off int64) error {
	end := t.image.plan.Layers[e.Layer].End()
	in := &tarReader{off: e.Header, t: &transfer{ctx: t.ctx, image: t.image, src: t.src, opts: t.opts,
		region: e.Layer, end: end, buf: make([]byte, chunks.Size)}}
	in.t.urgent.Store(true)
	defer in.t.Close()
	return expandInto(p, off, e, in)
}

// expandInto fills what of p, which stands at an offset of the file, is of a sparse file, whose
// header and bytes r gives.
func expandInto(p []byte, off int64, e vsif.Expansion, in io.Reader) error {
	r := tar.NewReader(in)
	if _, err := r.Next(); err != nil {
		return err
	}
	block, at := make([]byte, vsif.BlockSize), e.Offset
	for i := 0; at < off+int64(len(p)); i++ {
		n, err := io.ReadFull(r, block)
		if n == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if !e.Has(i) {
			continue
		}
		if from := at - off; from+int64(n) > 0 && from < int64(len(p)) {
			copy(p[max(from, 0):], block[max(-from, 0):n])
		}
		at += int64(n)
	}
	return nil
}

// A tarReader reads the tar of a layer.
type tarReader struct {
	t    *transfer
	off  int64
	left []byte
}

func (r *tarReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		b, err := r.t.tar(r.off / chunks.Size * chunks.Size)
		if err != nil {
			return 0, err
		}
		r.left = b[r.off%chunks.Size:]
	}
	n := copy(p, r.left)
	r.left, r.off = r.left[n:], r.off+int64(n)
	return n, nil
}
