// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/zran"
)

// span is how much of a tar lies between two points at which inflating can begin: half as
// much would take twice the room (32 KiB a point), twice as much is read twice as long before
// the first byte that is wanted.
const span = 4 << 20

// A stream reads the tar of a layer from one of its points on, chunk by chunk. What the
// layer knows already is compared; where it knows no more, the stream is its extender, and
// adds to the index. It is for one goroutine.
type stream struct {
	layer *layer
	body  io.ReadCloser // the layer as it is in the registry, from the point on
	tee   *tee
	tar   io.Reader // of what is inflated
	close func()
	out   int64 // where in the tar tar stands

	extends bool // it holds layer.extender
	scanner *scanner
	scanned int64     // where in the tar the scanner begins
	diff    hash.Hash // of the tar up to out
	sums    [][]byte  // for the next record
	begun   int64     // where in the tar the first chunk begins that was read from its start
	disk    error     // why the index could not be written
}

// open returns a stream that begins at a point. Call with extender held if it is to extend.
func (l *layer) open(p point, body io.ReadCloser, extends bool) (*stream, error) {
	s := &stream{layer: l, body: body, out: p.Point.Out, extends: extends, begun: chunks.Count(p.Point.Out) * chunks.Size}
	s.tee = &tee{r: body, at: p.Point.In, hash: l.blob.Algorithm().Hash()}
	s.diff = l.tar.Algorithm().Hash()
	if p.Point.Out > 0 || p.Point.In > 0 {
		if err := errors.Join(restore(s.tee.hash, p.Blob), restore(s.diff, p.Tar)); err != nil {
			return nil, err
		}
	}
	switch l.compression {
	case vsif.Gzip:
		z := zran.Resume(s.tee, p.Point)
		z.SetSpan(span, s.passed)
		s.tar = z
	case vsif.Zstd:
		z, err := newZstd(s.tee)
		if err != nil {
			return nil, err
		}
		s.tar, s.close = z, z.Close
	default:
		s.tar = s.tee
	}
	if extends {
		s.scanned = l.next
		s.scanner = newScanner(l.next, l.count)
	}
	return s, nil
}

// maxZstdWindow is what decoders must have room for at least (RFC 8878, section 3.1.1.1.2), and what
// "zstd --ultra" takes at most without a special flag.
const maxZstdWindow = 128 << 20

func newZstd(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
}

// passed notes a point. All of the tar before it has been read, and nothing behind it.
func (s *stream) passed(p zran.Point) {
	if !s.extends || p.Out <= s.layer.last() {
		return
	}
	s.record(record{Point: &point{Point: p, Blob: s.tee.state(p.In), Tar: state(s.diff)}})
}

// record adds a record to the index, with what the scanner found and the sums since the last one.
func (s *stream) record(r record) {
	r.Entries, r.Next = s.scanner.take()
	r.Sums, s.sums = s.sums, nil
	s.disk = cmp.Or(s.disk, s.layer.extend(r))
}

// next fills buf, which has room for a chunk, with the next one, or with what of it the
// tar still has: less at its end, with io.EOF, once all was found right.
//
// Errors: vsif.ErrLayer, backends.ErrCorrupt; those of the body.
func (s *stream) next(buf []byte) (int, error) {
	buf = buf[:chunks.Size-s.out%chunks.Size]
	from := s.out
	for n := 0; n < len(buf); {
		got, err := s.tar.Read(buf[n:])
		if err := s.took(buf[n : n+got]); err != nil {
			return 0, s.broken(err)
		}
		n += got
		switch {
		case errors.Is(err, io.EOF):
			return n, s.end(buf[:n], from)
		case err != nil:
			return 0, s.broken(err)
		}
	}
	if s.disk != nil {
		return 0, s.disk
	}
	return len(buf), s.check(buf, from)
}

// took hashes what was inflated, and gives it to the scanner.
func (s *stream) took(b []byte) error {
	from := s.out
	s.out += int64(len(b))
	if s.out > s.layer.bound {
		return fmt.Errorf("%w: layer %s has more than the %d bytes that it says", vsif.ErrLayer, s.layer.blob, s.layer.bound)
	}
	s.diff.Write(b)
	if !s.extends {
		return nil
	}
	if s.out > s.scanned {
		if _, err := s.scanner.w.Write(b[max(s.scanned-from, 0):]); err != nil {
			return s.scanner.finish()
		}
	}
	switch s.layer.compression {
	case vsif.None: // any place is one to begin at
		if s.out-s.layer.last() >= span/4 {
			s.passed(zran.Point{In: s.out, Out: s.out})
		}
	case vsif.Zstd:
		if len(s.sums) >= span/chunks.Size {
			s.record(record{})
		}
	}
	return nil
}

// check compares a chunk that was read from its start, or adds its sum.
func (s *stream) check(b []byte, from int64) error {
	if from < s.begun {
		return nil
	}
	sum := sha256.Sum256(b)
	known, ok := s.layer.sum(chunkOf(from))
	switch {
	case ok && !bytes.Equal(sum[:], known):
		return fmt.Errorf("%w: byte %d of layer %s is not what it was", backends.ErrCorrupt, from, s.layer.blob)
	case !ok && s.extends:
		s.sums = append(s.sums, sum[:])
	}
	return nil
}

// broken is err, with which inflating ended, as what is wrong with the layer if its bytes
// are those that it has the digest of.
func (s *stream) broken(err error) error {
	if err := cmp.Or(s.tee.err, s.disk); err != nil {
		return err
	}
	if wrong := s.rest(); wrong != nil {
		return wrong
	}
	if errors.Is(err, vsif.ErrLayer) {
		return err
	}
	return fmt.Errorf("%w: layer %s: %v", vsif.ErrLayer, s.layer.blob, err)
}

// rest reads what follows the compressed stream, and compares the digest.
func (s *stream) rest() error {
	if _, err := io.Copy(io.Discard, s.tee); err != nil {
		return err
	}
	if got := digest.NewDigest(s.layer.blob.Algorithm(), s.tee.sum()); got != s.layer.blob {
		return fmt.Errorf("%w: layer %s has the digest %s", backends.ErrCorrupt, s.layer.blob, got)
	}
	return nil
}

// end checks a layer of which b was the rest. It returns io.EOF if all is right.
func (s *stream) end(b []byte, from int64) error {
	if err := s.rest(); err != nil {
		return err
	}
	if got := digest.NewDigest(s.layer.tar.Algorithm(), s.diff); got != s.layer.tar {
		return fmt.Errorf("%w: the tar of layer %s has the digest %s, and its image names %s", vsif.ErrLayer, s.layer.blob, got, s.layer.tar)
	}
	if len(b) > 0 {
		if err := s.check(b, from); err != nil {
			return err
		}
	}
	if err := s.bounded(); err != nil {
		return err
	}
	if s.extends {
		if err := s.scanner.finish(); err != nil {
			return err
		}
		if s.record(record{End: &end{Size: s.out}}); s.disk != nil {
			return s.disk
		}
	}
	return io.EOF
}

// bounded checks that the layer's end is the one that its bound was computed of: what a
// registry says of it decides where all else stands in the file, on this machine alone.
func (s *stream) bounded() error {
	if !vsif.NeedsTrailer(s.layer.descriptor) || s.tee.ends < vsif.TrailerSize {
		return nil
	}
	bound, err := vsif.Bound(s.layer.descriptor, s.tee.end)
	if err == nil && bound != s.layer.bound {
		err = fmt.Errorf("%w: layer %s was said to have %d bytes, and its end says %d", vsif.ErrLayer, s.layer.blob, s.layer.bound, bound)
	}
	return err
}

// stop ends the stream.
func (s *stream) stop() {
	if s.scanner != nil {
		s.scanner.stop()
	}
	if s.close != nil {
		s.close()
	}
	s.body.Close()
}

// A tee hashes what is read through it, as far as it was used: a decoder reads ahead.
type tee struct {
	r    io.Reader
	at   int64 // where what is left over begins
	left []byte
	hash hash.Hash
	err  error // of r, if it was none of its end

	end  [vsif.TrailerSize]byte // the last bytes that were read
	ends int64                  // how many were
}

// Read implements io.Reader. What was read before has been used by then.
func (t *tee) Read(b []byte) (int, error) {
	t.use(t.at + int64(len(t.left)))
	n, err := t.r.Read(b)
	t.left = append(t.left[:0], b[:n]...)
	t.ends += int64(n)
	last := append(t.end[:], b[max(n-len(t.end), 0):n]...)
	copy(t.end[:], last[len(last)-len(t.end):])
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}

// use hashes up to an offset.
func (t *tee) use(to int64) {
	n := to - t.at
	t.hash.Write(t.left[:n])
	t.left, t.at = t.left[n:], to
}

// state returns the state of the hash at an offset.
func (t *tee) state(at int64) []byte {
	t.use(at)
	return state(t.hash)
}

// sum returns the hash of all that was read.
func (t *tee) sum() hash.Hash {
	t.use(t.at + int64(len(t.left)))
	return t.hash
}

// state returns what restore goes on from. All hashes of the standard library have one.
func state(h hash.Hash) []byte {
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil
	}
	return b
}

func restore(h hash.Hash, state []byte) error {
	return h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeros [64 << 10]byte
