// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// Where an eStargz layer has its table of contents (docs/estargz.md of
// https://github.com/containerd/stargz-snapshotter): the last footerSize bytes are an empty gzip
// member, whose header says where that begins.
const (
	footerSize = 51
	footerAt   = 16 // of 16 hexadecimal digits, and the magic
	tocMagic   = "STARGZ"
	tocName    = "stargz.index.json"
	maxTOC     = 64 << 20 // bytes compressed
	maxTOCText = 96 << 20
	maxGap     = 1 << 20 // between two members that are asked for in one request
)

// readTOC returns the size of the region of a layer with a table of contents, which it fetches
// unless it is here. Errors: vsif.ErrLayer, backends.ErrCorrupt; those of the registry and the disk; ctx's.
func (l *layer) readTOC(ctx context.Context, open opener) (int64, error) {
	select {
	case l.extender <- struct{}{}:
		defer func() { <-l.extender }()
	case <-ctx.Done():
		return 0, fetch.ErrClosed
	}
	if size, ok := l.known(); ok {
		return size, nil
	}
	text, at, err := l.fetchTOC(ctx, open)
	if err != nil {
		return 0, err
	}
	entries, members, size, err := vsif.ReadTOC(bytes.NewReader(text), at)
	if err == nil && (size > l.bound || len(entries) > maxEntries) {
		err = fmt.Errorf("%w: layer %s has more than the %d bytes that it says", vsif.ErrLayer, l.blob, l.bound)
	}
	if err != nil {
		return 0, err
	}
	return size, l.extend(record{Entries: entries, Members: members, End: &end{Size: size}})
}

// fetchTOC returns the text of the table, and where it begins in the layer.
func (l *layer) fetchTOC(ctx context.Context, open opener) (text []byte, at int64, err error) {
	c := l.toc
	if c.Offset < 0 {
		if c.Offset, err = l.footer(ctx, open); err != nil {
			return nil, 0, err
		}
		c.Size = l.size - footerSize - c.Offset
	}
	if c.Size > maxTOC {
		return nil, 0, fmt.Errorf("%w: layer %s has a table of contents of %d bytes", vsif.ErrLayer, l.blob, c.Size)
	}
	packed, err := readRange(ctx, open, c.Offset, c.Size)
	if err != nil {
		return nil, 0, err
	}
	hashed := packed
	if l.compression == vsif.Gzip {
		text, err = unpackTOC(packed)
		hashed = text
	} else if text, err = inflate(l.compression, packed, maxTOCText); errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it is shorter than that
	}
	if err == nil && c.Digest.Algorithm().FromBytes(hashed) != c.Digest {
		err = errors.New("another digest")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the table of contents of layer %s: %v", backends.ErrCorrupt, l.blob, err)
	}
	return text, c.Offset, nil
}

// footer returns where an eStargz layer has its table.
func (l *layer) footer(ctx context.Context, open opener) (int64, error) {
	footer, err := readRange(ctx, open, max(l.size-footerSize, 0), min(footerSize, l.size))
	if err != nil {
		return 0, err
	}
	if len(footer) == footerSize && string(footer[footerAt+16:footerAt+22]) == tocMagic {
		if at, err := strconv.ParseInt(string(footer[footerAt:footerAt+16]), 16, 64); err == nil && at >= 0 && at < l.size-footerSize {
			return at, nil
		}
	}
	return 0, fmt.Errorf("%w: layer %s says that it has a table of contents, and has none", vsif.ErrLayer, l.blob)
}

func readRange(ctx context.Context, open opener, off, n int64) ([]byte, error) {
	t := open(ctx, off, n, true)
	defer t.Close()
	b := make([]byte, n)
	_, err := io.ReadFull(t, b)
	return b, err
}

// unpackTOC returns the text of a table of contents: a file in a tar in a gzip member.
func unpackTOC(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil {
		return nil, err
	}
	if h.Name != tocName || h.Size > maxTOCText {
		return nil, fmt.Errorf("%q of %d bytes", h.Name, h.Size)
	}
	return io.ReadAll(r)
}

// pieces is unit for a layer with a table of contents. Call with mu held.
func (l *layer) pieces(from, to, size int64) (first, last int64) {
	first, last = from, size
	if i := l.memberAt(from); i < len(l.members) && l.members[i].Offset < from {
		first = chunks.Count(l.members[i].Offset) * chunks.Size
	}
	if i := l.memberAt(to - 1); i < len(l.members) {
		last = max((l.members[i].Offset+l.members[i].Size)/chunks.Size*chunks.Size, to)
	} else if l.whole >= 0 && to < size {
		last = to
	}
	return min(first, from), min(last, size)
}

// memberAt returns the number of the first member that ends behind an offset. Call with mu held.
func (l *layer) memberAt(off int64) int {
	return sort.Search(len(l.members), func(i int) bool { return l.members[i].Offset+l.members[i].Size > off })
}

// A packed is where a transfer is in a layer with a table of contents.
type packed struct {
	body  *body
	at    int64 // where in the layer body stands
	end   int64 // and ends
	from  int64 // where the member begins whose bytes are here
	bytes []byte
}

func (p *packed) stop(t *transfer) {
	if p.body == nil {
		return
	}
	_ = p.body.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	p.body, t.body = nil, nil
}

// unpack returns the chunk of the region that begins at an offset.
func (t *transfer) unpack(l *layer, off int64) ([]byte, error) {
	size, err := l.readTOC(t.ctx, t.image.opener(t.src, t.region, t.opts))
	if err != nil || off >= size {
		return t.buf, err
	}
	l.mu.Lock()
	all := l.members[l.memberAt(off):]
	to := l.memberAt(t.tarEnd() - 1)
	last := l.members[min(to, len(l.members)-1)].To
	l.mu.Unlock()
	for i, m := range all {
		if m.Offset >= off+chunks.Size {
			break
		}
		b, err := t.member(m, needed(all[i:]), max(last, m.To))
		if err != nil {
			return nil, err
		}
		copy(t.buf[max(m.Offset-off, 0):], b[max(off-m.Offset, 0):])
	}
	return t.buf, nil
}

// needed returns how many bytes of a gzip member the pieces that begin the list need.
func needed(pieces []vsif.Member) (n int64) {
	for _, m := range pieces {
		if m.From != pieces[0].From {
			break
		}
		n = max(n, m.Inner+m.Size)
	}
	return n
}

// member returns the bytes of a piece, and inflates so many of its gzip member; those up to
// last are wanted next.
func (t *transfer) member(m vsif.Member, need, last int64) ([]byte, error) {
	p := &t.packed
	if p.bytes == nil || p.from != m.From || int64(len(p.bytes)) < m.Inner+m.Size {
		if p.body == nil || p.at > m.From || m.From-p.at > maxGap || m.To > p.end {
			p.stop(t)
			t.mu.Lock()
			t.body = t.newBody(m.From, last)
			p.body, p.at, p.end = t.body, m.From, last
			t.mu.Unlock()
		}
		if _, err := io.CopyN(io.Discard, p.body, m.From-p.at); err != nil {
			return nil, err
		}
		packed := make([]byte, m.To-m.From)
		if _, err := io.ReadFull(p.body, packed); err != nil {
			return nil, err
		}
		p.at, p.from, p.bytes = m.To, m.From, nil
		b, err := inflate(t.image.layers[t.region].compression, packed, need)
		if err != nil {
			return nil, fmt.Errorf("%w: layer %s at byte %d: %v", backends.ErrCorrupt, t.image.layers[t.region].blob, m.From, err)
		}
		p.bytes = b
	}
	b := p.bytes[m.Inner : m.Inner+m.Size]
	if m.Digest.Algorithm().FromBytes(b) != m.Digest {
		return nil, fmt.Errorf("%w: layer %s at byte %d", backends.ErrCorrupt, t.image.layers[t.region].blob, m.From)
	}
	return b, nil
}

// inflate returns the first n bytes of a gzip member, or of a zstd frame and those behind it; with
// io.ErrUnexpectedEOF if there are fewer.
func inflate(kind vsif.Compression, packed []byte, n int64) ([]byte, error) {
	var r io.Reader
	if kind == vsif.Zstd {
		z, err := newZstd(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	} else {
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		r = z
	}
	var b bytes.Buffer
	got, err := io.CopyN(&b, r, n)
	if errors.Is(err, io.EOF) && got < n {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// packed is layer for one with a table of contents, which the index of the layer has.
func (v *verifier) packed(tree *vsif.Tree, i int, size int64, toc digest.Digest) error {
	var entries []vsif.Entry
	var members []vsif.Member
	x, err := readIndex(pathOf(v.dir, toc, ""), toc, func(r record, _ int64) {
		entries, members = append(entries, r.Entries...), append(members, r.Members...)
	})
	if err != nil {
		return v.wrong(fmt.Errorf("the table of contents of layer %d is not here: %v", i, err))
	}
	x.f.Close()
	at, next := v.region(i)
	for _, m := range members {
		if m.Offset+m.Size > size || m.Size > maxTOCText {
			return v.wrong(fmt.Errorf("a piece behind the end of layer %d", i))
		}
		if err := v.zeros(at, v.plan.Layers[i].Offset+m.Offset); err != nil {
			return err
		}
		b := make([]byte, m.Size)
		if _, err := v.r.ReadAt(b, v.plan.Layers[i].Offset+m.Offset); err != nil {
			return err
		}
		if m.Digest.Algorithm().FromBytes(b) != m.Digest {
			return v.wrong(fmt.Errorf("other bytes of layer %d at %d", i, m.Offset))
		}
		at = v.plan.Layers[i].Offset + m.Offset + m.Size
		v.done += m.Size
		v.progress(v.done)
	}
	if err := v.zeros(at, next); err != nil {
		return err
	}
	if err := tree.Add(entries); err != nil {
		return v.wrong(err)
	}
	return nil
}

// zeros checks that [off, end) is.
func (v *verifier) zeros(off, end int64) error {
	for off < end {
		b, err := v.read(off, end)
		if err != nil {
			return err
		}
		if !isZero(b) {
			return v.wrong(fmt.Errorf("something stands at %d", off))
		}
		off += int64(len(b))
	}
	return nil
}
