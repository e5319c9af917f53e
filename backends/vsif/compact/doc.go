// SPDX-License-Identifier: Apache-2.0

// Package compact writes an image that package vsif laid out once more, with compressed
// blocks: a SIF of the usual size, for people who keep the file or copy it elsewhere.
//
// The tree stays as it is, inode by inode: only where the bytes of a file are, and how,
// is told anew. So the tables of the image that is read are gone through twice. The first
// time, blocks of files are read, compressed on all cores, and written in the order of
// the tree; files smaller than a block share blocks, called fragments. The second time,
// inodes and directories are written. The result depends on the image and the codec, and
// not on the number of cores.
//
// It reads no other squashfs: none that has compressed blocks, owners besides root, or
// devices. Start at [Write].
package compact

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/sregfs/sregfs/backends/vsif"
)

// Options say how an image is written.
type Options struct {
	Codec   Codec // "" is Gzip
	Workers int   // that compress at once; 0 is one for each core
}

var errSource = errors.New("not an image as it was laid out of layers")

// Write reads an image and writes it to w from offset 0 on; it returns how many bytes it
// wrote. What w holds already is not taken away. It needs memory for the tables of
// the image and about 2 MiB for each worker.
//
// Errors: those of r and w; ctx's; an error for any image that package vsif did not make.
func Write(ctx context.Context, w io.WriterAt, r io.ReaderAt, o Options) (int64, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Codec == "" {
		o.Codec = Gzip
	}
	encode, err := o.Codec.encoder()
	if err != nil {
		return 0, err
	}
	src, err := openSource(r)
	if err != nil {
		return 0, err
	}
	head, base, err := src.copyHead()
	if err != nil {
		return 0, err
	}
	d := &data{src: src, w: w, base: base, end: superSize, block: o.Codec.block()}
	if err := d.write(ctx, o); err != nil {
		return 0, err
	}
	t := &tables{src: src, data: d, encode: encode}
	super, text, err := t.build(o.Codec)
	if err != nil {
		return 0, err
	}
	end := up(d.end + int64(len(text)))
	text = append(text, make([]byte, end-d.end-int64(len(text)))...)
	if _, err := w.WriteAt(text, base+d.end); err != nil {
		return 0, err
	}
	if _, err := w.WriteAt(super, base); err != nil {
		return 0, err
	}
	size := src.finishHead(head, base, end)
	if _, err := w.WriteAt(head, 0); err != nil {
		return 0, err
	}
	return size, nil
}

// align is that of the partition, and of its end, which a loop device wants.
const align = 4 << 10

func up(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// What is read and written of a SIF: see package vsif.
const (
	sifHeader      = 128
	sifDescriptor  = 585
	sifDescriptors = 48
	sifData        = 32 << 10 // where what the descriptors describe begins

	dataPartition = 0x4004
	maxObject     = 64 << 20 // bytes of a text
)

// copyHead returns the header, the descriptors, and what stands before the partition, with
// the place where that begins. Of what is described only the way to lay out the image
// again is left out.
func (s *source) copyHead() (head []byte, base int64, err error) {
	head = make([]byte, sifData)
	copy(head, s.head)
	le := binary.LittleEndian
	for i := range sifDescriptors {
		d := s.descriptor(head, i)
		switch name := cString(d[73:201]); {
		case d[4] == 0 || le.Uint32(d) == dataPartition:
		case name == sizesName:
			clear(d)
			le.PutUint64(head[80:], le.Uint64(head[80:])+1)
		default:
			offset, size := le.Uint64(d[17:]), le.Uint64(d[25:])
			if size > maxObject {
				return nil, 0, fmt.Errorf("%w: %s has %d bytes", errSource, name, size)
			}
			text := make([]byte, size)
			if _, err := s.r.ReadAt(text, int64(offset)); err != nil { //nolint:gosec // an offset that is none is an error
				return nil, 0, err
			}
			le.PutUint64(d[17:], uint64(len(head)))
			head = append(head, text...)
			head = append(head, make([]byte, (-len(head))&7)...)
		}
	}
	base = up(int64(len(head)))
	return append(head, make([]byte, base-int64(len(head)))...), base, nil
}

// finishHead tells where the partition is, and returns the size of the file.
func (s *source) finishHead(head []byte, base, size int64) int64 {
	le := binary.LittleEndian
	for i := range sifDescriptors {
		if d := s.descriptor(head, i); d[4] != 0 && le.Uint32(d) == dataPartition {
			le.PutUint64(d[17:], uint64(base)) //nolint:gosec // not negative
			le.PutUint64(d[25:], uint64(size)) //nolint:gosec // as above
			le.PutUint64(d[33:], uint64(size)) //nolint:gosec // as above
			clear(d[73:201])
			copy(d[73:201], fmt.Sprintf("oci-sif-%d.compact.squashfs", vsif.Version))
		}
	}
	le.PutUint64(head[120:], uint64(base+size-sifData)) //nolint:gosec // not negative
	return base + size
}

func (s *source) descriptor(head []byte, i int) []byte {
	return head[sifHeader+i*sifDescriptor:][:sifDescriptor]
}
