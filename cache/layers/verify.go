// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
)

// Verify reads a file of size bytes that was made of layers, makes it again of what it says that it was
// made of, and compares. What tables of contents say is in the indexes in dir. progress, if not nil, is called with the bytes that were read.
//
// Errors: backends.ErrCorrupt; ctx's; those of r.
func Verify(ctx context.Context, dir string, r io.ReaderAt, size int64, want string, progress func(done int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	v := &verifier{ctx: ctx, dir: dir, r: r, progress: progress}
	src, err := vsif.ReadSource(r)
	if err != nil {
		return v.wrong(err)
	}
	if got := vsif.Digest(src.Manifest); got != want {
		return v.wrong(fmt.Errorf("it is of %s", got))
	}
	blobs, tars, err := describe(src.Manifest, src.Config)
	if err == nil && len(tars) != len(src.Tars) {
		err = fmt.Errorf("it has %d tars of %d", len(src.Tars), len(tars))
	}
	if err == nil {
		v.plan, err = vsif.NewPlan(int64(len(src.Manifest)), int64(len(src.Config)), src.Bounds)
	}
	if err == nil && v.plan.Size != size {
		err = fmt.Errorf("it has %d bytes, and not %d", size, v.plan.Size)
	}
	if err != nil {
		return v.wrong(err)
	}
	tree := vsif.NewTree()
	for i, tar := range tars {
		check := func() error { return v.layer(tree, i, src.Tars[i], tar) }
		if toc, ok := vsif.TOC(blobs[i]); ok {
			check = func() error { return v.packed(tree, i, src.Tars[i], toc.Digest) }
		}
		if size := src.Tars[i]; size < 0 || size > v.plan.Layers[i].Size {
			return v.wrong(fmt.Errorf("a tar of %d bytes", size))
		}
		if err := check(); err != nil {
			return err
		}
	}
	m, err := buildOf(v.plan, tree, src)
	if err != nil {
		return v.wrong(err)
	}
	head := v.plan.Head()
	if err := v.compare(m, head.Offset, head.End()); err != nil {
		return err
	}
	return v.compare(m, v.plan.Room.Offset, size)
}

type verifier struct {
	ctx      context.Context //nolint:containedctx // of one call
	dir      string
	r        io.ReaderAt
	plan     *vsif.Plan
	done     int64
	progress func(int64)
	buf      [chunks.Size]byte
}

func (v *verifier) wrong(err error) error { return fmt.Errorf("%w: %v", backends.ErrCorrupt, err) }

// read fills the buffer with [off, end), or less.
func (v *verifier) read(off, end int64) ([]byte, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	b := v.buf[:min(end-off, chunks.Size)]
	if _, err := v.r.ReadAt(b, off); err != nil {
		return nil, err
	}
	v.done += int64(len(b))
	v.progress(v.done)
	return b, nil
}

// region returns where the region of a layer begins, and where the next part of the file does.
func (v *verifier) region(i int) (begin, next int64) {
	if i+1 < len(v.plan.Layers) {
		return v.plan.Layers[i].Offset, v.plan.Layers[i+1].Offset
	}
	return v.plan.Layers[i].Offset, v.plan.Room.Offset
}

// layer checks one tar of size bytes and the zeros behind it, and adds what is in it to the tree.
func (v *verifier) layer(tree *vsif.Tree, i int, size int64, want digest.Digest) error {
	begin, next := v.region(i)
	hash, scan := want.Algorithm().Hash(), newScanner(0, 0)
	defer scan.stop()
	for off := begin; off < next; {
		b, err := v.read(off, next)
		if err != nil {
			return err
		}
		tar := b[:min(max(begin+size-off, 0), int64(len(b)))]
		hash.Write(tar)
		if _, err := scan.w.Write(tar); err != nil {
			return v.wrong(scan.finish())
		}
		if !isZero(b[len(tar):]) {
			return v.wrong(fmt.Errorf("something stands behind the tar of layer %d", i))
		}
		off += int64(len(b))
	}
	if got := digest.NewDigest(want.Algorithm(), hash); got != want {
		return v.wrong(fmt.Errorf("the tar of layer %d has the digest %s, want %s", i, got, want))
	}
	if err := scan.finish(); err != nil {
		return v.wrong(err)
	}
	entries, _ := scan.take()
	if err := tree.Add(entries); err != nil {
		return v.wrong(err)
	}
	return nil
}

// compare compares [off, end) with what was made again.
func (v *verifier) compare(m *made, off, end int64) error {
	want := make([]byte, chunks.Size)
	for off < end {
		b, err := v.read(off, end)
		if err != nil {
			return err
		}
		want := want[:len(b)]
		clear(want)
		if err := m.fill(want, off, v.expand); err != nil {
			return v.wrong(err)
		}
		if !bytes.Equal(b, want) {
			return v.wrong(fmt.Errorf("other bytes at %d", off))
		}
		off += int64(len(b))
	}
	return nil
}

func (v *verifier) expand(e vsif.Expansion, p []byte, off int64) error {
	region := v.plan.Layers[e.Layer]
	return expandInto(p, off, e, io.NewSectionReader(v.r, region.Offset+e.Header, region.Size-e.Header))
}
