// SPDX-License-Identifier: Apache-2.0

// Package zran decompresses gzip streams from the middle.
//
// A [Reader] that reads a stream from its start tells, every few MiB of output,
// a [Point]: what a decoder has in mind at that place. With it another Reader
// begins there, given the compressed bytes from there on. The name is that of the
// example that comes with zlib, which does the same.
//
// The decoder is that of the standard library with a few lines changed: inflate.go
// and dict.go. Start reading at [Reader.Read].
//
// Zstandard streams are not read here: they have no place where so little has to be kept.
package zran

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

var (
	// ErrChecksum says that a member is not what its trailer says.
	ErrChecksum = errors.New("gzip: invalid checksum")
	// ErrHeader says that no gzip member stands where one should.
	ErrHeader = errors.New("gzip: invalid header")
	// ErrPoint says that a Point can not be the work of this package.
	ErrPoint = errors.New("gzip: not a point to resume at")
)

// A Point is where decompression can begin: before the header of a deflate block.
// The zero Point is the start of the stream. All fields are to be kept.
type Point struct {
	In     int64  // bytes of the compressed stream before it; the position in bits is In*8 - Bits
	Bits   uint8  // how many bits of the byte before In are still to be used, 0 to 7
	Byte   byte   // that byte; the bits that were used may be 0
	Out    int64  // bytes of output before it
	Window []byte // up to 32 KiB: the member's last output before it, which what follows may refer to
	CRC    uint32 // checksum of the member's output before it
	Size   uint32 // its length modulo 1<<32
}

// A Reader decompresses one gzip stream: all its members, one after the other. It
// takes about 80 KiB. It is not safe for concurrent use.
type Reader struct {
	f     decompressor
	begun bool // the first header was read
	err   error
	out   int64  // bytes of output returned by Read
	crc   uint32 // of the member's output so far
	size  uint32

	span int64
	last int64 // output before the last point
	tell func(Point)
	buf  [512]byte
}

// NewReader returns a Reader of the stream that r gives from its start. It reads
// ahead by up to 32 KiB.
func NewReader(r io.Reader) *Reader { return Resume(r, Point{}) }

// Resume returns a Reader of the output behind p; r gives the stream from p.In on.
// Members that end behind p are checked whole, also that in which p lies.
func Resume(r io.Reader, p Point) *Reader {
	z := new(Reader)
	z.Reset(r, p)
	return z
}

// Reset makes z as if Resume had made it, without allocating. It keeps nothing of p.
func (z *Reader) Reset(r io.Reader, p Point) {
	in := z.f.r
	if in == nil {
		in = bufio.NewReaderSize(r, 32<<10)
	}
	in.Reset(r)
	*z = Reader{f: z.f, out: p.Out, last: p.Out, crc: p.CRC, size: p.Size}
	z.f.r, z.f.boundary = in, z.boundary
	z.begun = p.In > 0
	if p.Bits > 7 || len(p.Window) > windowSize {
		z.err = ErrPoint
		return
	}
	z.f.reset(p)
}

// SetSpan makes z call f with the first Point where at least n bytes of output lie
// before it since the last one, or since z began: then with each place where a
// block begins, for n = 0. f is called by Read, after all output before the point
// was returned and before any behind it. The Point and its Window are f's to keep.
func (z *Reader) SetSpan(n int64, f func(Point)) { z.span, z.tell = n, f }

// boundary is called by the decoder before the header of each block.
func (z *Reader) boundary() (flush bool) {
	pending := int64(z.f.dict.availRead())
	if z.tell == nil || z.out+pending-z.last < z.span {
		return false
	}
	if pending > 0 {
		return true
	}
	z.last = z.out
	z.tell(Point{
		In: z.f.roffset, Bits: uint8(z.f.nb), Byte: byte(z.f.b << (8 - z.f.nb)),
		Out: z.out, Window: z.f.dict.window(), CRC: z.crc, Size: z.size,
	})
	return false
}

// Read reads decompressed bytes. At the end of the stream, after the last member was
// checked, it returns io.EOF. Zeros after the last member are ignored, as gzip(1)
// does; anything else is an error.
//
// Errors: those of the underlying reader; io.ErrUnexpectedEOF where the stream ends
// too early, also when it is empty; [CorruptInputError]; [ErrChecksum]; [ErrHeader].
func (z *Reader) Read(b []byte) (n int, err error) {
	if !z.begun {
		z.begun = true
		z.err = noEOF(z.header())
	}
	for n == 0 && z.err == nil && len(b) > 0 {
		n, z.err = z.f.Read(b)
		z.out += int64(n)
		z.size += uint32(n)
		z.crc = crc32.Update(z.crc, crc32.IEEETable, b[:n])
		if z.err == io.EOF { //nolint:errorlint // only the decoder itself says that a member has ended
			z.err = z.nextMember()
		}
	}
	return n, z.err
}

// nextMember checks the trailer of the member that was read, and reads the header
// of the one behind it. It returns io.EOF if there is none.
func (z *Reader) nextMember() error {
	t := z.buf[:8]
	if err := z.full(t); err != nil {
		return noEOF(err)
	}
	if binary.LittleEndian.Uint32(t) != z.crc || binary.LittleEndian.Uint32(t[4:]) != z.size {
		return ErrChecksum
	}
	z.crc, z.size = 0, 0
	next, err := z.f.r.Peek(1)
	if err == nil && next[0] == 0 {
		return z.padding()
	}
	return z.header()
}

// padding reads the zeros with which some tools fill up the last block of a tape.
func (z *Reader) padding() error {
	for {
		if c, err := z.f.r.ReadByte(); err != nil {
			return err
		} else if c != 0 {
			return ErrHeader
		}
	}
}

// header reads the header of a member (RFC 1952, section 2.3). It returns io.EOF
// if the stream ends before it.
func (z *Reader) header() error {
	h := z.buf[:10]
	if err := z.full(h); err != nil {
		return err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return ErrHeader
	}
	flags, sum := h[3], crc32.ChecksumIEEE(h)
	if err := z.optional(flags, sum); err != nil {
		return noEOF(err)
	}
	z.f.reset(Point{In: z.f.roffset})
	return nil
}

// The flags of a header that say what follows its first ten bytes.
const (
	headerCRC = 1 << (iota + 1)
	extra
	name
	comment
)

// optional skips the parts of a header that not each has. sum is that of the bytes before.
func (z *Reader) optional(flags byte, sum uint32) error {
	if flags&extra != 0 {
		size := z.buf[:2]
		if err := z.full(size); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, size)
		for left := int(binary.LittleEndian.Uint16(size)); left > 0; {
			part := z.buf[:min(left, len(z.buf))]
			if err := z.full(part); err != nil {
				return err
			}
			sum = crc32.Update(sum, crc32.IEEETable, part)
			left -= len(part)
		}
	}
	for _, flag := range []byte{name, comment} {
		for i := 0; flags&flag != 0; i++ {
			c := z.buf[:1]
			if i == len(z.buf) { // As much as the standard library reads.
				return ErrHeader
			}
			if err := z.full(c); err != nil {
				return err
			}
			sum = crc32.Update(sum, crc32.IEEETable, c)
			if c[0] == 0 {
				break
			}
		}
	}
	if flags&headerCRC == 0 {
		return nil
	}
	want := z.buf[:2]
	if err := z.full(want); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(want) != uint16(sum) {
		return ErrHeader
	}
	return nil
}

// full fills b from the compressed stream.
func (z *Reader) full(b []byte) error {
	n, err := io.ReadFull(z.f.r, b)
	z.f.roffset += int64(n)
	return err
}
