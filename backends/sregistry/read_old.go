// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// openOld downloads from the server itself. It is one request, never more: each
// counts. What is read whole is checked against its digest, because nothing else
// would tell a cut-off image from a whole one.
func (c *client) openOld(ctx context.Context, m manifest, img backends.Image, s ranged.Span) (io.ReadCloser, error) {
	if s.Off > ranged.MaxSkip {
		return nil, fmt.Errorf("%w: reading from offset %d (this store gives only whole images)", errors.ErrUnsupported, s.Off)
	}
	if m.Image == "" {
		return nil, backends.NotFound("the server says nowhere to download it")
	}
	address, err := c.target(m.Image)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.do(req)
	if err == nil {
		if err = notAnImage(resp); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		return nil, hide(overQuota(err), address.Path)
	}
	if img.Size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != img.Size {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: %d bytes, %d before", backends.ErrBadAnswer, resp.ContentLength, img.Size)
	}
	c.locations.put(locationKey(img), location{old: true, size: resp.ContentLength})
	if s.Off > 0 || s.N >= 0 && (resp.ContentLength < 0 || s.N < resp.ContentLength) {
		return s.Body(resp, img.Size)
	}
	return verified(resp.Body, img.Digest), nil
}

// overQuota adds to a refusal what it most likely is.
func overQuota(err error) error {
	if statusOf(err) != http.StatusForbidden {
		return err
	}
	// Of this image, or of its collection: others can be had, and this one in some days.
	return backoff.Permanent(fmt.Errorf("%w: HTTP 403 (the server allows a number of downloads of an image each week)", backends.ErrRateLimited))
}

// hide takes secret, the path of a download, out of the text of err.
func hide(err error, secret string) error {
	if secret == "" || !strings.Contains(err.Error(), secret) {
		return err
	}
	return &hiddenError{err, secret}
}

type hiddenError struct {
	err    error
	secret string
}

func (e *hiddenError) Error() string { return strings.ReplaceAll(e.err.Error(), e.secret, "/…") }
func (e *hiddenError) Unwrap() error { return e.err }

// verified gives backends.ErrCorrupt in the place of the end if body does not
// have the digest.
func verified(body io.ReadCloser, digest string) io.ReadCloser {
	algorithm, want, _ := strings.Cut(digest, ":")
	switch algorithm {
	case "md5":
		return &verifier{ReadCloser: body, sum: md5.New(), want: want}
	case "sha256":
		return &verifier{ReadCloser: body, sum: sha256.New(), want: want}
	}
	return body
}

type verifier struct {
	io.ReadCloser
	sum  hash.Hash
	want string
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && fmt.Sprintf("%x", v.sum.Sum(nil)) != v.want {
		return n, fmt.Errorf("%w: not the bytes of %s", backends.ErrCorrupt, v.want)
	}
	return n, err
}
