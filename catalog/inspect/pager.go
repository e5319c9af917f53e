// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"io"
)

const (
	pageSize = 128 << 10
	maxPages = 64 // held at a time
)

// A pager reads an image by pages and keeps the last few, so that the many small
// reads of a parser become few ranges for a registry. It is for one goroutine.
type pager struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt has no place for it, and a pager lives for one call
	r      io.ReaderAt
	size   int64
	pages  map[int64][]byte
	recent []int64 // numbers of pages, the last used at the end
	err    error   // the first of r's or ctx's: everything read after it fails too
}

func newPager(ctx context.Context, r io.ReaderAt, size int64) *pager {
	return &pager{ctx: ctx, r: r, size: size, pages: map[int64][]byte{}}
}

// ReadAt is io.ReaderAt, within size.
func (p *pager) ReadAt(b []byte, off int64) (int, error) {
	var n int
	for n < len(b) {
		if off < 0 || off >= p.size {
			return n, io.EOF
		}
		page, err := p.page(off / pageSize)
		if err != nil {
			return n, err
		}
		from := off % pageSize
		if from >= int64(len(page)) {
			return n, io.EOF // the reader holds less than size says
		}
		m := copy(b[n:], page[from:])
		n += m
		off += int64(m)
	}
	return n, nil
}

// bytes returns n bytes from off. The caller bounds n.
func (p *pager) bytes(off, n int64) ([]byte, error) {
	if n < 0 || off < 0 || off > p.size || n > p.size-off {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	if _, err := p.ReadAt(b, off); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

func (p *pager) page(i int64) ([]byte, error) {
	if page, ok := p.pages[i]; ok {
		p.use(i)
		return page, nil
	}
	if p.err != nil {
		return nil, p.err
	}
	off := i * pageSize
	page := make([]byte, min(pageSize, p.size-off))
	n, err := p.fetch(page, off)
	if err != nil && !errors.Is(err, io.EOF) {
		p.err = err
		return nil, err
	}
	page = page[:n]
	if len(p.recent) == maxPages {
		delete(p.pages, p.recent[0])
		p.recent = p.recent[1:]
	}
	p.pages[i] = page
	p.recent = append(p.recent, i)
	return page, nil
}

func (p *pager) use(i int64) {
	for at, n := range p.recent {
		if n == i {
			p.recent = append(append(p.recent[:at:at], p.recent[at+1:]...), i)
			return
		}
	}
}

func (p *pager) fetch(b []byte, off int64) (int, error) {
	if r, ok := p.r.(interface {
		ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
	}); ok {
		return r.ReadAtContext(p.ctx, b, off)
	}
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.ReadAt(b, off)
}
