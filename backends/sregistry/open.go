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
	"regexp"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// maxSkip is how many bytes of an answer are thrown away to get to the ones
// that were asked for, where a store gives only the whole.
const maxSkip = 4 << 20

// A span is n bytes from off; n < 0 means to the end.
type span struct{ off, n int64 }

func (s span) header() string {
	if s.n < 0 {
		return fmt.Sprintf("bytes=%d-", s.off)
	}
	return fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.n-1)
}

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
	s, key := span{off, n}, placeKey(img)
	place, known := c.places.get(key)
	if known && !place.old && place.target != "" {
		resp, err := c.fetch(ctx, place, s)
		if err == nil {
			return section(resp, s, place.size)
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
	if known && place.old || strings.HasPrefix(now.Digest, "md5:") {
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
func (c *client) openNew(ctx context.Context, m manifest, img backends.Image, s span) (io.ReadCloser, error) {
	key := placeKey(img)
	resp, err := c.imageFile(ctx, split(img.Ref), s)
	if err != nil {
		c.noted(key, err)
		if !elsewhere(err) && !errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil || statusOf(err) == 0 {
			return nil, err
		}
		body, oldErr := c.openOld(ctx, m, img, s)
		if errors.Is(oldErr, fs.ErrNotExist) && !elsewhere(err) {
			return nil, err
		}
		return body, oldErr
	}
	p, err := c.found(resp, s)
	if err == nil && img.Size >= 0 && p.size >= 0 && p.size != img.Size {
		err = fmt.Errorf("%w: %d bytes, %d before", backends.ErrCorrupt, p.size, img.Size)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	c.places.put(key, p)
	return section(resp, s, p.size)
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
func (c *client) imageFile(ctx context.Context, n name, s span) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, c.url("/v1/imagefile/"+n.String()+"?arch="+escape(c.arch)), nil)
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
func (c *client) fetch(ctx context.Context, p place, s span) (*http.Response, error) {
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
func (c *client) ranged(req *http.Request, s span) (*http.Response, error) {
	req.Header.Set("Range", s.header())
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := httpx.Do(c.http, req, notOK[:]...)
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
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch mediaType {
	case "application/json":
		text, err := httpx.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if err := decode(resp, text, new(any)); err != nil {
			return err
		}
		return fmt.Errorf("%w: JSON in place of an image", backends.ErrCorrupt)
	case "text/html", "application/xhtml+xml":
		return fmt.Errorf("%w: a page in place of an image", backends.ErrCorrupt)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("%w: a proxy has compressed the image (%q)", backends.ErrCorrupt, enc)
	}
	return nil
}

// found is the place that resp came from.
func (c *client) found(resp *http.Response, s span) (place, error) {
	p := place{size: -1, etag: resp.Header.Get("ETag")}
	if final := resp.Request; final != nil && final.URL != nil && backends.Origin(final.URL) != backends.Origin(c.home) {
		p.target = final.URL.String()
	}
	switch resp.StatusCode {
	case http.StatusOK:
		p.size = resp.ContentLength
		return p, nil
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		var err error
		p.size, err = total(resp.Header.Get("Content-Range"))
		return p, err
	}
	return p, fmt.Errorf("%w: status %d for a range of %d bytes", backends.ErrCorrupt, resp.StatusCode, s.n)
}

var contentRange = regexp.MustCompile(`^bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})$`)

// total reads the size of the whole from a Content-Range header.
func total(header string) (int64, error) {
	m := contentRange.FindStringSubmatch(strings.TrimSpace(header))
	if m == nil {
		return -1, fmt.Errorf("%w: Content-Range %.100q", backends.ErrCorrupt, header)
	}
	return strconv.ParseInt(m[3], 10, 64)
}

// section returns the part s of an image of the given size, or of unknown size
// if that is negative, whatever part of it resp brings. It closes the body if
// it fails.
func section(resp *http.Response, s span, size int64) (body io.ReadCloser, err error) {
	defer func() {
		if err != nil {
			resp.Body.Close()
		}
	}()
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		return http.NoBody, nil
	case http.StatusPartialContent:
		if err := checkRange(resp.Header.Get("Content-Range"), s, size); err != nil {
			return nil, err
		}
		return limited(resp.Body, s.n), nil
	}
	if size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != size {
		return nil, fmt.Errorf("%w: %d bytes, %d before", backends.ErrCorrupt, resp.ContentLength, size)
	}
	if err := skip(resp.Body, s.off); err != nil {
		return nil, err
	}
	return limited(resp.Body, s.n), nil
}

// checkRange reports whether a Content-Range header begins at s and ends there,
// or before.
func checkRange(header string, s span, size int64) error {
	whole, err := total(header)
	if err != nil {
		return err
	}
	m := contentRange.FindStringSubmatch(strings.TrimSpace(header))
	first, err1 := strconv.ParseInt(m[1], 10, 64)
	last, err2 := strconv.ParseInt(m[2], 10, 64)
	if errors.Join(err1, err2) != nil || first != s.off || last < first || last >= whole ||
		s.n >= 0 && last > s.off+s.n-1 || size >= 0 && whole != size {
		return fmt.Errorf("%w: Content-Range %.100q for %q", backends.ErrCorrupt, header, s.header())
	}
	return nil
}

// skip throws away the first off bytes; fewer if there are fewer.
func skip(body io.Reader, off int64) error {
	if off > maxSkip {
		return tooFar(off)
	}
	_, err := io.CopyN(io.Discard, body, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return backends.TransportError(err)
	}
	return nil
}

func tooFar(off int64) error {
	return fmt.Errorf("%w: reading from offset %d (this store gives only whole images)", errors.ErrUnsupported, off)
}

// limited ends body after n bytes, if n is not negative.
func limited(body io.ReadCloser, n int64) io.ReadCloser {
	if n < 0 {
		return body
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, n), body}
}
