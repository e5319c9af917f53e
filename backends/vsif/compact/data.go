// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends/vsif"
)

// data writes the bytes of files, and notes where they are.
type data struct {
	src  *source
	w    io.WriterAt
	base int64
	end  int64 // of what was written, from base

	block int64 // the size of a block

	// In the order of the inodes: for each file that is smaller than a block, where it is
	// in a fragment; for each other, where it begins, and its words.
	tails  []tail
	starts []int64
	words  []uint32

	fragments []fragment

	buffers sync.Pool // of []byte, for what is to be written
}

type tail struct{ fragment, offset uint32 }

type fragment struct {
	start int64
	word  uint32
}

// A part is bytes of the partition; at is 0 for a hole.
type part struct{ at, size int64 }

// A job is one block on its way: read and compressed by a worker, then written in turn.
type job struct {
	parts    []part
	size     int64
	fragment bool
	first    bool   // of a file
	text     []byte // what is to be written
	word     uint32
	err      error
	done     chan struct{}
}

// write reads and writes all files. Jobs get to the workers and to the writer in the
// same order; each list holds so few that memory is bounded.
func (d *data) write(ctx context.Context, o Options) error {
	group, ctx := errgroup.WithContext(ctx)
	work, order := make(chan *job), make(chan *job, 2*o.Workers)
	group.Go(func() error {
		defer close(work)
		defer close(order)
		return d.produce(func(j *job) error {
			j.done = make(chan struct{})
			for _, to := range []chan *job{order, work} {
				select {
				case to <- j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range o.Workers {
		group.Go(func() error {
			encode, err := o.Codec.encoder()
			if err != nil {
				return err
			}
			in := make([]byte, d.block)
			for j := range work {
				j.err = j.run(d, in, encode)
				close(j.done)
			}
			return nil
		})
	}
	group.Go(func() error {
		for j := range order {
			select {
			case <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := d.put(j); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// produce makes the jobs. A fragment comes between two files, whose blocks have to be
// next to each other.
func (d *data) produce(emit func(*job) error) error {
	pending, count := &job{fragment: true}, uint32(0)
	flush := func() error {
		if pending.size == 0 {
			return nil
		}
		j := pending
		pending, count = &job{fragment: true}, count+1
		return emit(j)
	}
	err := d.src.each(func(n *inode) error {
		if n.kind != typeFile || n.size == 0 {
			return nil
		}
		if n.size >= d.block {
			return n.blocks(d.block, emit)
		}
		if pending.size+n.size > d.block {
			if err := flush(); err != nil {
				return err
			}
		}
		d.tails = append(d.tails, tail{count, uint32(pending.size)}) //nolint:gosec // less than a block
		pending.parts = append(pending.parts, n.parts(new(int64), 0, n.size)...)
		pending.size += n.size
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// blocks emits the blocks of a file.
func (n *inode) blocks(block int64, emit func(*job) error) error {
	var stored int64
	for at := int64(0); at < n.size; at += block {
		size := min(n.size-at, block)
		if err := emit(&job{parts: n.parts(&stored, at, size), size: size, first: at == 0}); err != nil {
			return err
		}
	}
	return nil
}

// parts returns where a range of a file is that begins with one of its blocks. stored is
// how many bytes of the file there are before it, and is moved behind it.
func (n *inode) parts(stored *int64, at, size int64) (all []part) {
	for ; size > 0; at += vsif.BlockSize {
		word := binary.LittleEndian.Uint32(n.words[at/vsif.BlockSize*4:])
		p := part{n.start + *stored, min(size, vsif.BlockSize)}
		size -= p.size
		switch last := len(all) - 1; {
		case word == 0:
			all = append(all, part{0, p.size})
			continue
		case last >= 0 && all[last].at > 0:
			all[last].size += p.size // the blocks of a file stand next to each other
		default:
			all = append(all, p)
		}
		*stored += p.size
	}
	return all
}

// run reads a block into in, and compresses it.
func (j *job) run(d *data, in []byte, encode func(dst, src []byte) []byte) error {
	raw := in[:j.size]
	to := raw
	for _, p := range j.parts {
		if p.at == 0 {
			clear(to[:p.size])
		} else if _, err := d.src.r.ReadAt(to[:p.size], d.src.base+p.at); err != nil {
			return err
		}
		to = to[p.size:]
	}
	if !j.fragment && zero(raw) {
		return nil // a hole
	}
	out, _ := d.buffers.Get().([]byte)
	j.text = encode(out[:0], raw)
	j.word = uint32(len(j.text)) //nolint:gosec // about a block
	if len(j.text) >= len(raw) {
		j.text = append(j.text[:0], raw...)
		j.word = uint32(len(raw)) | rawBlock //nolint:gosec // at most a block
	}
	return nil
}

func zero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// put writes a block, and notes where it is.
func (d *data) put(j *job) error {
	if j.err != nil {
		return j.err
	}
	switch {
	case j.fragment:
		d.fragments = append(d.fragments, fragment{d.end, j.word})
	case j.first:
		d.starts = append(d.starts, d.end)
		fallthrough
	default:
		d.words = append(d.words, j.word)
	}
	_, err := d.w.WriteAt(j.text, d.base+d.end)
	d.end += int64(len(j.text))
	if j.text != nil {
		d.buffers.Put(j.text) //nolint:staticcheck // SA6002: a slice's header is little beside its bytes
	}
	return err
}
