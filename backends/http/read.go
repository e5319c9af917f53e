// SPDX-License-Identifier: Apache-2.0

package http

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	nethttp "net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// A location is where a file is: the address of its folder, and its name.
type location struct{ folder, base string }

func (p location) url() string { return p.folder + segment(p.base) }

// where yields the locations where ref can be, first the one where it was found last.
func (c *client) where(ref backends.Ref, format string) iter.Seq[location] {
	return func(yield func(location) bool) {
		last, known := c.locations.Get(locationKey(ref))
		if known && !yield(last) {
			return
		}
		for _, folder := range c.folders(ref.Collection) {
			usual, _ := c.first.Get(folder)
			for base := range c.naming.files(ref, format, usual) {
				if p := (location{folder, base}); p != last && !yield(p) {
					return
				}
			}
		}
	}
}

func locationKey(ref backends.Ref) string {
	ref.Version = ""
	return ref.String()
}

// remember notes where ref is, unless that is where it is looked for first.
func (c *client) remember(ref backends.Ref, p location) {
	for first := range c.where(ref, "") {
		if first != p {
			c.locations.Put(locationKey(ref), p)
		}
		return
	}
}

// each calls fn with the locations of ref until fn succeeds.
//
// Errors: fn's first one that is no fs.ErrNotExist; fs.ErrNotExist.
func (c *client) each(ref backends.Ref, format string, fn func(location) error) error {
	var other error
	for p := range c.where(ref, format) {
		err := fn(p)
		_, listed := c.first.Get(p.folder)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, errNoImage),
			errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized) && !listed:
			// Some servers say so of every name that they lack, but none that has listed
			// what it has.
			other = cmp.Or(other, err)
		default:
			if err == nil {
				c.remember(ref, p)
			}
			return err
		}
	}
	return cmp.Or(other, backends.NotFound("no such file on the server"))
}

// errNoImage is an answer that is none of an image.
var errNoImage = fmt.Errorf("%w: a page for people in place of an image (is there a network to sign in to?)", backends.ErrBadAnswer)

// Stat asks the server for the header of the file.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (img backends.Image, err error) {
	err = c.each(ref, "", func(p location) error {
		img, _, err = c.look(ctx, ref, p)
		return err
	})
	if err != nil {
		return backends.Image{}, err
	}
	if ref.Version != "" && ref.Version != img.Version {
		return backends.Image{}, backends.NotFound("version %q", ref.Version)
	}
	return img, nil
}

// look returns the facts of the file at p, and what the server calls its version.
func (c *client) look(ctx context.Context, ref backends.Ref, p location) (img backends.Image, held string, err error) {
	resp, err := c.head(ctx, p)
	if err != nil {
		return img, "", err
	}
	resp.Body.Close()
	size := resp.ContentLength
	switch {
	case strings.HasSuffix(resp.Request.URL.Path, "/"):
		return img, "", backends.NotFound("that is a folder")
	case ranged.IsPage(resp.Header):
		return img, "", errNoImage
	case resp.StatusCode != nethttp.StatusOK:
		if size, err = ranged.Size(resp); err != nil {
			return img, "", err
		}
	}
	_, _, format, _ := c.naming.parse(p.base)
	ref.Version = ""
	img = backends.Image{Ref: ref, Size: size, Format: format, URL: p.url()}
	img.Modified, _ = nethttp.ParseTime(resp.Header.Get("Last-Modified"))
	held = ranged.VersionOf(resp.Header, size)
	c.ownTags.Store(img.Modified.IsZero() || size < 0 || held != nginxTag(img.Modified, size))
	sum, err := c.sum(ctx, p, held)
	if err != nil {
		return img, "", err
	}
	if sum != "" {
		img.Version, img.Digest = sum, sum
		return img, held, nil
	}
	if img.Version = held; held == "" {
		return img, "", fmt.Errorf("%w: the server gives neither an ETag nor Last-Modified (a list of digests in the folder would do)", backends.ErrBadAnswer)
	}
	return img, held, nil
}

// sum returns the digest of the file at p, "" if there is none to be had. held is
// what the server calls the version now.
func (c *client) sum(ctx context.Context, p location, held string) (string, error) {
	digests, err := c.digests(ctx, p.folder, false)
	sum, ok := digests[p.base]
	if err != nil || !ok {
		return "", err
	}
	if before, known := c.versions.Get(versionKey(p, sum.String())); known && before != held {
		// The file was written since, and so the list may have been.
		if digests, err = c.digests(ctx, p.folder, true); err != nil {
			return "", err
		}
		if sum, ok = digests[p.base]; !ok {
			return "", nil
		}
	}
	c.versions.Put(versionKey(p, sum.String()), held)
	return sum.String(), nil
}

func versionKey(p location, version string) string { return p.url() + "@" + version }

// head asks for the header of a file: by GET for a byte of it where the server refuses
// a HEAD. Some do so with 403 or 404 (a link that is signed for GET, a proxy): a 404
// counts once a HEAD of anything was answered.
func (c *client) head(ctx context.Context, p location) (*nethttp.Response, error) {
	if !c.noHead.Load() {
		resp, err := c.do(ctx, nethttp.MethodHead, p.url(), func(req *nethttp.Request) {
			req.Header.Set("Accept-Encoding", "identity")
		})
		switch {
		case err == nil:
			c.heads.Store(true)
			return resp, nil
		case !httpx.HeadRefused(err), errors.Is(err, fs.ErrNotExist) && c.heads.Load():
			return nil, err
		}
	}
	resp, err := c.do(ctx, nethttp.MethodGet, p.url(), ranged.Span{N: 1}.Ask, nethttp.StatusRequestedRangeNotSatisfiable)
	if err == nil {
		c.noHead.Store(true)
	}
	return resp, err
}

// Open reads a part of the file, provided that it is img.Version still.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (body io.ReadCloser, err error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return nethttp.NoBody, nil
	}
	err = c.each(img.Ref, img.Format, func(p location) error {
		body, err = c.open(ctx, img, p, ranged.Span{Off: off, N: n})
		return err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

func (c *client) open(ctx context.Context, img backends.Image, p location, s ranged.Span) (io.ReadCloser, error) {
	if !digestVersion(img.Version) {
		return c.part(ctx, img, p, img.Version, s)
	}
	held, known := c.versions.Get(versionKey(p, img.Version))
	if known {
		body, err := c.part(ctx, img, p, held, s)
		if !errors.Is(err, backends.ErrChanged) {
			return body, err
		}
		// Perhaps it was only written anew: the list of digests decides.
	}
	now, held, err := c.look(ctx, img.Ref, p)
	switch {
	case err != nil:
		return nil, err
	case now.Version != img.Version:
		return nil, backends.ErrChanged
	}
	return c.part(ctx, img, p, held, s)
}

// part reads what the server calls version.
func (c *client) part(ctx context.Context, img backends.Image, p location, version string, s ranged.Span) (io.ReadCloser, error) {
	header, err := ranged.Conditions(version)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(ctx, nethttp.MethodGet, p.url(), func(req *nethttp.Request) {
		maps.Copy(req.Header, header)
		s.Ask(req)
	}, nethttp.StatusRequestedRangeNotSatisfiable, nethttp.StatusPreconditionFailed)
	if err != nil {
		return nil, err
	}
	_, _, format, _ := c.naming.parse(p.base)
	if format == backends.FormatIMGGz {
		ranged.Stored(resp)
	}
	size, sizeErr := ranged.Size(resp)
	if size < 0 || img.Size < 0 {
		size = img.Size
	}
	switch {
	case ranged.IsPage(resp.Header) && resp.StatusCode/100 == 2:
		err = errNoImage
	case resp.StatusCode == nethttp.StatusPreconditionFailed:
		err = backends.ErrChanged
	case sizeErr != nil:
		err = sizeErr
	case resp.StatusCode/100 == 2 && !ranged.SameVersion(resp.Header, size, version):
		err = backends.ErrChanged
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return s.Body(resp, img.Size)
}
