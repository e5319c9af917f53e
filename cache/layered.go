// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/fetch"
	"github.com/sregfs/sregfs/cache/layers"
)

// A layeredSource is a source of a container image whose file is made here, of its layers.
type layeredSource struct {
	source
	made *layers.Image
}

var _ fetch.Divided = layeredSource{}

func (s layeredSource) of() layers.Source { return layers.Source{Client: s.client, Image: s.image} }

// Open implements fetch.Source.
func (s layeredSource) Open(ctx context.Context, opts backends.TransferOptions) fetch.Transfer {
	return s.made.Open(ctx, s.of(), opts)
}

// Prepare implements fetch.Divided.
func (s layeredSource) Prepare(ctx context.Context) error { return s.made.Prepare(ctx, s.of()) }

// Cold implements fetch.Divided.
func (s layeredSource) Cold() [][2]int64 { return s.made.Cold() }

// Unit implements fetch.Divided.
func (s layeredSource) Unit(from, to int64) (first, last int64) { return s.made.Unit(from, to) }

// Same implements fetch.Source.
func (s layeredSource) Same(other fetch.Source) bool {
	o, ok := other.(layeredSource)
	return ok && s.source.Same(o.source)
}

// sourceOf returns a source without what belongs to the download.
func sourceOf(s fetch.Source) source {
	if l, ok := s.(layeredSource); ok {
		return l.source
	}
	return s.(source)
}

// offer adds a place to fetch the blob from.
func (d *data) offer(s source) {
	if d.made != nil {
		d.download.Offer(layeredSource{s, d.made})
		return
	}
	d.download.Offer(s)
}

// newImage returns the image whose file d is, if that is made of layers; else nil.
func newImage(d *data) *layers.Image {
	if !vsif.IsDigest(d.check.digest) {
		return nil
	}
	it := d.item
	return layers.New(layers.Options{
		Context: d.ctx, Dir: it.dir.layers(), Origin: string(it.from), Digest: d.check.digest, Size: d.size,
		Whole: func(name string) *os.File {
			if !Key(name).valid() {
				return nil
			}
			f, _, err := openRegular(it.dir.file(Key(name)), os.O_RDONLY)
			if err != nil {
				return nil
			}
			return f
		},
	})
}

// NextData returns the first stretch of the blob from off on that is not a hole, and ok false
// if there is none. Where nothing tells, all is data. Of a file that is made of layers it waits
// for its tables.
//
// Errors: those of ReadAtContext.
func (b *Blob) NextData(ctx context.Context, off int64) (start, end int64, ok bool, err error) {
	if off >= b.size {
		return 0, 0, false, nil
	}
	if f, whole := b.File(); whole {
		start, end, ok = nextData(f, off, b.size)
		return start, end, ok, nil
	}
	made := b.data.Load().made
	if made == nil {
		return off, b.size, true, nil
	}
	if _, err := b.ReadAtContext(ctx, make([]byte, 1), 0); err != nil {
		return 0, 0, false, err
	}
	start, end, ok = made.NextData(off)
	return start, end, ok, nil
}
