// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// Open reads where the image was last found, if that was just now. Otherwise the
// manifest must still be that of img, and the stores are asked: first the object
// store, because each request to the other one counts as a download.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return http.NoBody, nil
	}
	s, key := ranged.Span{Off: off, N: n}, placeKey(img)
	place, known := c.places.get(key)
	if known && !place.old && place.target != "" {
		resp, err := c.fetch(ctx, place, s) //nolint:bodyclose // it becomes the result
		if err == nil {
			return s.Body(resp, place.size)
		}
		if !stale(err) {
			return nil, err
		}
	}
	m, err := c.manifest(ctx, split(img.Ref))
	if err != nil {
		return nil, err
	}
	now := c.image(m, split(img.Ref))
	if img.Version != "" && now.Version != img.Version {
		return nil, backends.ErrChanged
	}
	if known && place.old || strings.HasPrefix(now.Digest, "md5:") || !split(img.Ref).inLibrary() {
		return c.openOld(ctx, m, img, s)
	}
	return c.openNew(ctx, m, img, s)
}

// stale reports whether a presigned URL that gave err may merely have expired,
// or may name what was replaced.
func stale(err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed:
		return true
	}
	return false
}

// openNew reads from the object store, and from the other one if it is not there.
func (c *client) openNew(ctx context.Context, m manifest, img backends.Image, s ranged.Span) (io.ReadCloser, error) {
	key := placeKey(img)
	resp, err := c.imageFile(ctx, split(img.Ref), s)
	if err != nil {
		c.noted(key, err)
		if !elsewhere(err) && !shut(err) && !errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil || statusOf(err) == 0 {
			return nil, err
		}
		body, oldErr := c.openOld(ctx, m, img, s)
		if errors.Is(oldErr, fs.ErrNotExist) && !elsewhere(err) {
			return nil, err
		}
		return body, oldErr
	}
	p, err := c.found(resp)
	if err == nil && img.Size >= 0 && p.size >= 0 && p.size != img.Size {
		err = fmt.Errorf("%w: %d bytes, %d before", backends.ErrBadAnswer, p.size, img.Size)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	c.places.put(key, p)
	return s.Body(resp, p.size)
}

// elsewhere reports whether err says that the object store does not have it, or
// that there is no such store.
func elsewhere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported)
}

// noted remembers that an image is not in the object store.
func (c *client) noted(key string, err error) {
	if elsewhere(err) {
		c.places.put(key, place{old: true, size: -1})
	}
}

// imageFile asks the library API for a part of the image. It redirects to the
// object store, by a URL that is good for some minutes and for GET alone.
func (c *client) imageFile(ctx context.Context, n name, s ranged.Span) (*http.Response, error) {
	req, err := httpx.NewRequest(ctx, http.MethodGet, c.url("/v1/imagefile/"+n.String()+"?arch="+escape(c.arch)), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*")
	if c.login.known() {
		token, err := c.login.get(ctx, "")
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return c.ranged(req, s)
}

// fetch asks the object store directly, for the bytes that were there before.
func (c *client) fetch(ctx context.Context, p place, s ranged.Span) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.target, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	if p.etag != "" {
		req.Header.Set("If-Match", p.etag)
	}
	return c.ranged(req, s)
}

// ranged sends req for a part. A part that begins past the end is an empty body.
func (c *client) ranged(req *http.Request, s ranged.Span) (*http.Response, error) {
	s.Ask(req)
	resp, err := httpx.Answer(c.http, req)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return resp, nil
	case resp.StatusCode/100 != 2:
		return nil, answer(resp)
	}
	if err := notAnImage(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// notAnImage looks for the answers that have status 200 and are none: a number
// in JSON, the page of a proxy.
func notAnImage(resp *http.Response) error {
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType != "application/json" {
		return ranged.Unfit(resp)
	}
	text, err := httpx.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := decode(resp, text, new(any)); err != nil {
		return err
	}
	return fmt.Errorf("%w: JSON in place of an image", backends.ErrBadAnswer)
}

// found is the place that resp came from.
func (c *client) found(resp *http.Response) (place, error) {
	p := place{size: -1, etag: resp.Header.Get("ETag")}
	if final := resp.Request; final != nil && final.URL != nil && backends.Origin(final.URL) != backends.Origin(c.home) {
		p.target = final.URL.String()
	}
	var err error
	p.size, err = ranged.Size(resp)
	return p, err
}
