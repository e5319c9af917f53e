// SPDX-License-Identifier: Apache-2.0

package library

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

const filesPath = "/v1/imagefile/"

// Open reads where the image was last found, if that was just now; in the OCI
// registry behind the library if it has one; and else where the library redirects
// to. Always by the digest: what the tag means by now does not matter.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if img.Version == "" {
		var err error
		if img, err = c.Stat(ctx, img.Ref); err != nil {
			return nil, err
		}
	}
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return http.NoBody, nil
	}
	span := ranged.Span{Off: off, N: n}
	if at, ok := c.links.get(linkKey(img)); ok {
		resp, err := c.follow(ctx, at, span) //nolint:bodyclose // Body does it
		if err == nil {
			return span.Body(resp, img.Size)
		}
		if !stale(err) {
			return nil, err
		}
		c.links.drop(linkKey(img), at)
	}
	if img.Digest != "" {
		body, err := c.openBranchImage(ctx, img, off, n)
		if body != nil || err != nil {
			return body, err
		}
	}
	return c.openFile(ctx, img, span)
}

func linkKey(img backends.Image) string { return split(img.Ref).path() + "@" + img.Version }

// stale reports whether an address that gave err may merely have expired.
func stale(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, backends.ErrBadAnswer)
}

// openBranchImage reads from the OCI registry, where the layer has the digest of the
// file. It returns nothing at all if there is no registry, or none that has it.
func (c *client) openBranchImage(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	at, err := c.branch(ctx, split(img.Ref), pull)
	if at == nil || err != nil {
		return nil, err
	}
	layer := backends.Image{Ref: at.named(img.Ref.Tag), Size: img.Size, Digest: img.Digest, Version: img.Digest}
	body, err := at.Open(ctx, layer, off, n)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrChanged) {
		return nil, nil
	}
	return body, err
}

// openFile asks the library itself. Servers that know no digest there are asked for
// the tag, while that means the same.
func (c *client) openFile(ctx context.Context, img backends.Image, span ranged.Span) (io.ReadCloser, error) {
	resp, err := c.file(ctx, img, hashOf(img.Version), span) //nolint:bodyclose // Body does it
	if errors.Is(err, fs.ErrNotExist) && img.Ref.Tag != "" {
		now, statErr := c.Stat(ctx, img.Ref)
		switch {
		case statErr != nil:
			return nil, statErr
		case now.Version != img.Version:
			return nil, backends.ErrChanged
		}
		resp, err = c.file(ctx, img, img.Ref.Tag, span) //nolint:bodyclose // Body does it
	}
	if err != nil {
		return nil, err
	}
	return span.Body(resp, img.Size)
}

// file asks for a part of the image that the library has under reference.
func (c *client) file(ctx context.Context, img backends.Image, reference string, span ranged.Span) (resp *http.Response, err error) {
	arch := img.Labels["arch"]
	if arch == "" {
		arch = c.arch
	}
	err = c.loggedIn(ctx, func(base *url.URL, token string) error {
		address := base.String() + filesPath + split(img.Ref).path() + ":" + url.PathEscape(reference) + "?arch=" + url.QueryEscape(arch)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		authorize(req, token)
		span.Ask(req)
		resp, err = c.part(req) //nolint:bodyclose // the caller does it
		if err != nil {
			return err
		}
		if final := resp.Request; final != nil && final.URL != nil && backends.Origin(final.URL) != backends.Origin(base) {
			c.links.put(linkKey(img), link{address: final.URL.String(), etag: resp.Header.Get("ETag")})
		}
		return nil
	})
	return resp, err
}

// follow asks where the library redirected to, for the bytes that were there before.
func (c *client) follow(ctx context.Context, at link, span ranged.Span) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	if at.etag != "" {
		req.Header.Set("If-Match", at.etag)
	}
	span.Ask(req)
	return c.part(c.sentAway(req))
}

// part sends a request for a part of an image.
func (c *client) part(req *http.Request) (*http.Response, error) {
	resp, err := httpx.Answer(c.http, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return resp, nil
	}
	return nil, refusal(resp)
}
