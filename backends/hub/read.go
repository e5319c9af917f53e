// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// Stat answers from the index. Only while that cannot be had the service is
// asked.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	if err := checkName(ref); err != nil {
		return backends.Image{}, err
	}
	ix, noIndex := c.indexNow(ctx)
	if noIndex != nil {
		if ctx.Err() != nil {
			return backends.Image{}, ctx.Err()
		}
		img, err := c.ask(ctx, ref)
		return img, without(err, noIndex)
	}
	r, b, err := ix.find(ref)
	if err != nil {
		return backends.Image{}, err
	}
	img := c.image(ix, r, b)
	if ref.Version == "" && !b.newest {
		img.Ref.Tag = ref.Tag // its own tag means a newer build by now
	}
	return img, nil
}

// without adds to err why there was no index to do without the service. That
// the service knows no such image is the answer and not a failure.
func without(err, noIndex error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w (and without an index: %v)", err, noIndex)
}

// Open reads the file. It is the same for ever: what could change is whether it
// is there.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if err := checkName(img.Ref); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return http.NoBody, nil
	}
	at, size, err := c.whereIs(ctx, img)
	if err != nil {
		return nil, err
	}
	if img.Size >= 0 && size >= 0 && img.Size != size {
		return nil, fmt.Errorf("%w: the image has %d bytes, and had %d", backends.ErrChanged, size, img.Size)
	}
	span := ranged.Span{Off: off, N: n}
	resp, err := c.ranged(ctx, at, span) //nolint:bodyclose // Body takes it over
	if err != nil {
		return nil, explain(err)
	}
	if size < 0 {
		size = c.learn(img, resp)
	}
	if img.Format == backends.FormatIMGGz {
		ranged.Stored(resp)
	}
	return span.Body(resp, max(size, img.Size))
}

// ranged asks for a part of a file. A part that begins past the end is no error.
func (c *client) ranged(ctx context.Context, at *url.URL, span ranged.Span) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	span.Ask(req)
	return httpx.Do(c.http, req, http.StatusRequestedRangeNotSatisfiable)
}

// explain says what is to be done where the archive does not give what it lists.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the file is no longer in the archive", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the archive gives it to nobody; it has no logins (the setting \"data\" can name a copy of the archive)", err)
	}
	return err
}

// whereIs returns the address of the file of img and its size, -1 if that is
// not known.
func (c *client) whereIs(ctx context.Context, img backends.Image) (*url.URL, int64, error) {
	if at, ok := c.locations.get(img); ok {
		return at.url, at.size, nil
	}
	ix, noIndex := c.indexNow(ctx)
	if noIndex == nil {
		r := ix.repos[img.Ref.Repository()]
		if r == nil {
			return nil, 0, backends.NotFound("no such repository in the archive")
		}
		b := r.version(img.Version)
		if b == nil {
			return nil, 0, fmt.Errorf("%w: no build has the version %.80q", backends.ErrChanged, img.Version)
		}
		return c.locate(b.file), b.size, nil
	}
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	ref := img.Ref
	ref.Version = img.Version
	if _, err := c.ask(ctx, ref); err != nil {
		return nil, 0, without(err, noIndex)
	}
	at, ok := c.locations.get(img)
	if !ok {
		return nil, 0, fmt.Errorf("%w: no build has the version %.80q", backends.ErrChanged, img.Version)
	}
	return at.url, at.size, nil
}

// locate returns the address of a file below the place of all.
func (c *client) locate(file string) *url.URL {
	return &url.URL{Scheme: c.data.Scheme, Host: c.data.Host, Path: c.data.Path + "/" + file}
}

// learn remembers the size that an answer tells, and returns it.
func (c *client) learn(img backends.Image, resp *http.Response) int64 {
	size, err := ranged.Size(resp)
	if err != nil || size < 0 || ranged.IsPage(resp.Header) {
		return -1
	}
	c.locations.measured(img, size)
	return size
}
