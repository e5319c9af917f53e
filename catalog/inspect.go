// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// Inspection is what an image says of itself.
type Inspection struct {
	Record Record         `json:"image"`
	Facts  *inspect.Facts `json:"facts"`
}

// Inspect reads an image's own facts, by range, without downloading it; an image
// whose service cannot say how large it is has to be pulled for that.
//
// Errors: those of Resolve and Lookup, and of backends.Backend.Open.
func (c *Catalog) Inspect(ctx context.Context, uri string) (Inspection, error) {
	var found Inspection
	err := c.withImage(ctx, uri, func(r Remote, img backends.Image) (err error) {
		found, err = c.inspect(ctx, r, img, uri)
		return err
	})
	return found, err
}

func (c *Catalog) inspect(ctx context.Context, r Remote, img backends.Image, uri string) (Inspection, error) {
	bytes, err := c.peek(ctx, r, img)
	if err != nil {
		return Inspection{}, err
	}
	defer shut(bytes)
	facts, err := inspect.Read(ctx, bytes.r, bytes.size)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", uri, err)
	}
	rec := c.record(r.Name, img)
	if rec.Size < 0 {
		rec.Size = bytes.size
	}
	rec.Path, err = c.pathOf(ctx, r, img)
	return Inspection{Record: rec, Facts: facts}, err
}

// A peek reads an image without making the cache fetch it.
type peek struct {
	io.Closer
	r    io.ReaderAt
	size int64
}

func (c *Catalog) peek(ctx context.Context, r Remote, img backends.Image) (peek, error) {
	if r.Client == nil {
		return peek{}, r.unopened()
	}
	if r.atHand() {
		f, err := r.Client.OpenFile(ctx, img)
		if err != nil {
			return peek{}, err
		}
		info, err := f.Stat()
		if err != nil {
			return peek{}, errors.Join(backends.DiskError("inspect", err), f.Close())
		}
		return peek{f, f, info.Size()}, nil
	}
	if img.Size < 0 || c.BlobInfo(r.Name, img).State == cache.Cached {
		b, err := c.Blob(ctx, r.Name, img)
		if err != nil {
			return peek{}, err
		}
		read := func(p []byte, off int64) (int, error) { return b.ReadAtContext(ctx, p, off) }
		return peek{b, readerAt(read), b.Size()}, nil
	}
	pages := &pageReader{size: img.Size, fetch: func(p []byte, off int64) error {
		body, err := r.Client.Open(ctx, img, off, int64(len(p)))
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.ReadFull(body, p)
		return err
	}}
	return peek{io.NopCloser(nil), pages, img.Size}, nil
}

// shut closes what was only read, and has nothing to say any more.
func shut(c io.Closer) { c.Close() }

// readerAt makes an io.ReaderAt of a function.
type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

const (
	pageSize = 128 << 10 // one request for each
	maxPages = 64
)

// A pageReader reads ranges of a remote file through a few pages. It is not safe
// for concurrent use.
type pageReader struct {
	size  int64
	fetch func(p []byte, off int64) error // fills p
	pages map[int64][]byte
}

func (r *pageReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	for n < len(p) && off < r.size {
		page, err := r.page(off / pageSize)
		if err != nil {
			return n, err
		}
		m := copy(p[n:], page[off%pageSize:])
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *pageReader) page(i int64) ([]byte, error) {
	if page, ok := r.pages[i]; ok {
		return page, nil
	}
	page := make([]byte, min(pageSize, r.size-i*pageSize))
	if err := r.fetch(page, i*pageSize); err != nil {
		return nil, err
	}
	if r.pages == nil || len(r.pages) >= maxPages {
		r.pages = make(map[int64][]byte)
	}
	r.pages[i] = page
	return page, nil
}
