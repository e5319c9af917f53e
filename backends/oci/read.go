// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
	"github.com/sregfs/sregfs/backends/vsif"
)

// Stat finds the image by its tag; by the digest of its manifest, of the file itself or of
// its archive if ref.Version is one; and else the tag's image for the architecture
// that ref.Version names.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	if err := c.CheckName(ref); err != nil {
		return backends.Image{}, err
	}
	repo := c.repository(ref)
	ctx = c.scoped(ctx, repo, pull)
	var f found
	var err error
	switch {
	case ref.Version == "":
		f, err = c.resolve(ctx, repo, ref.Tag, c.arch)
	case isDigest(ref.Version):
		f.img, err = c.statDigest(ctx, repo, ref)
	case archive.IsDigest(ref.Version):
		img, err := c.statArchive(ctx, repo, ref)
		return c.named(img, ref), err
	default:
		f, err = c.resolve(ctx, repo, ref.Tag, ref.Version)
		if err == nil && f.top == f.img.Version {
			err = backends.NotFound("%s is one image and does not say for which architecture", ref.Tag)
		}
	}
	if err == nil {
		f.img, err = c.shown(ctx, repo, f.img)
	}
	if err != nil {
		return backends.Image{}, err
	}
	return c.named(f.img, ref), nil
}

// named returns img as what ref stands for.
func (c *client) named(img backends.Image, ref backends.Ref) backends.Image {
	img.Ref = ref
	img.Ref.Version = ""
	host := c.base.Host
	if host == dockerHub {
		host = "docker.io"
	}
	// What Apptainer pulls it by.
	scheme := "oras://"
	if img.Format == backends.FormatArchive || vsif.IsDigest(img.Digest) {
		scheme = "docker://"
	}
	img.URL = scheme + host + "/" + c.repository(ref)
	if ref.Tag != "" {
		img.URL += ":" + ref.Tag
	} else {
		img.URL += "@" + img.Version
	}
	return img
}

// statDigest takes the digest of a manifest, as "docker image ls --digests"
// shows it, and that of the file, as sha256sum does.
func (c *client) statDigest(ctx context.Context, repo string, ref backends.Ref) (backends.Image, error) {
	f, err := c.resolve(ctx, repo, ref.Version, c.arch)
	// docker-registry 2.8 answers 500 where the digest is that of a blob: it
	// tries to read the file as a manifest.
	if f.top != "" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backends.ErrUnavailable) {
		return f.img, err
	}
	if ref.Tag != "" {
		f, err := c.resolve(ctx, repo, ref.Tag, c.arch)
		if err == nil && f.img.Digest == ref.Version {
			return f.img, nil
		}
	}
	size, err := c.blobSize(ctx, repo, ref.Version)
	if httpx.HeadRefused(err) {
		size, err = c.toldSize(ctx, repo, ref.Version)
	}
	if err != nil {
		return backends.Image{}, err
	}
	return backends.Image{Size: size, Digest: ref.Version, Version: ref.Version, Format: "sif"}, nil
}

// statArchive finds the container image of an archive: by its manifest, of which the digest of
// the archive has the SHA-256, or by a tag, for registries that know it by its SHA-512.
func (c *client) statArchive(ctx context.Context, repo string, ref backends.Ref) (backends.Image, error) {
	f, err := c.resolve(ctx, repo, "sha256"+strings.TrimPrefix(ref.Version, archive.Algorithm), c.arch)
	if errors.Is(err, fs.ErrNotExist) && ref.Tag != "" {
		f, err = c.resolve(ctx, repo, ref.Tag, c.arch)
	}
	if err == nil && f.img.Digest != ref.Version {
		err = backends.NotFound("no container image has the archive %s", ref.Version)
	}
	if err != nil {
		return backends.Image{}, err
	}
	return f.img, nil
}

// blobSize asks for the size of a blob, fs.ErrNotExist if there is none.
func (c *client) blobSize(ctx context.Context, repo, digest string) (int64, error) {
	req, err := c.request(ctx, http.MethodHead, "/v2/"+repo+"/blobs/"+digest, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if err := ranged.Unfit(resp); err != nil {
		return 0, err // the length is that of a page
	}
	if resp.ContentLength < 0 {
		return c.toldSize(ctx, repo, digest)
	}
	return resp.ContentLength, nil
}

// toldSize is blobSize where a HEAD does not tell (some proxies leave it out): by a
// GET, whose body is not read.
func (c *client) toldSize(ctx context.Context, repo, digest string) (int64, error) {
	resp, err := c.blob(ctx, repo, digest, ranged.Span{N: 1})
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	size, err := ranged.Size(resp)
	if err == nil && size < 0 {
		err = fmt.Errorf("%w: blob %s of no stated size", backends.ErrBadAnswer, digest)
	}
	return size, err
}

// Open reads the layer by its digest: what the tag means by now does not
// matter, the bytes are always those of img.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if archive.IsDigest(img.Digest) {
		return c.openArchive(ctx, img, off, n)
	}
	if vsif.IsDigest(img.Digest) {
		return nil, fmt.Errorf("%w: a file that is made of layers is not read by itself", errors.ErrUnsupported)
	}
	if !isDigest(img.Digest) || img.Size < 0 {
		ref := img.Ref
		ref.Version = img.Version
		var err error
		if img, err = c.Stat(ctx, ref); err != nil {
			return nil, err
		}
		return c.Open(ctx, img, off, n)
	}
	if rest := img.Size - off; n < 0 || n > rest {
		n = max(rest, 0)
	}
	if n == 0 {
		return http.NoBody, nil
	}
	repo := c.repository(img.Ref)
	ctx = c.scoped(ctx, repo, pull)
	body, err := c.part(ctx, repo, img.Digest, ranged.Span{Off: off, N: n}, img.Size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.gone(ctx, img, err)
	}
	return body, err
}

// part returns a part of a blob of that size.
func (c *client) part(ctx context.Context, repo, digest string, span ranged.Span, size int64) (io.ReadCloser, error) {
	resp, err := c.blob(ctx, repo, digest, span) //nolint:bodyclose // it becomes the result
	if err != nil {
		return nil, err
	}
	return span.Body(resp, size)
}

// gone explains why the blob of img is not there.
func (c *client) gone(ctx context.Context, img backends.Image, missing error) error {
	if img.Ref.Tag == "" {
		return missing
	}
	now, err := c.Stat(ctx, img.Ref)
	switch {
	case err != nil && !errors.Is(err, errors.ErrUnsupported):
		return err
	case now.Version != img.Version:
		return backends.ErrChanged
	}
	return missing
}

// blob asks for a part of a blob: where the registry redirected to
// the last time, if that was just now and still works, else at the registry.
// However many find out at once that it no longer does, one asks.
func (c *client) blob(ctx context.Context, repo, digest string, span ranged.Span) (*http.Response, error) {
	key := repo + "@" + digest
	for failed := 0; failed < 2; {
		target, wait := c.redirects.get(key)
		switch {
		case wait != nil:
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case target == "":
			return c.blobAtHome(ctx, repo, digest, span)
		}
		resp, err := c.blobAt(ctx, target, span)
		if err == nil || ctx.Err() != nil || errors.Is(err, backends.ErrRateLimited) {
			return resp, err
		}
		c.redirects.expire(key, target) // an expired signature, most likely: the registry makes a new one
		failed++
	}
	return c.blobAtHome(ctx, repo, digest, span)
}

// blobAt asks where the registry redirected to.
func (c *client) blobAt(ctx context.Context, target string, span ranged.Span) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
	}
	span.Ask(req)
	return httpx.Do(c.plain, req, http.StatusRequestedRangeNotSatisfiable)
}

// blobAtHome asks the registry, and remembers where that redirects to.
func (c *client) blobAtHome(ctx context.Context, repo, digest string, span ranged.Span) (*http.Response, error) {
	key, target := repo+"@"+digest, ""
	defer func() {
		if target == "" { // on the registry itself the login is needed each time
			c.redirects.forget(key)
			return
		}
		c.redirects.put(key, target)
	}()
	req, err := c.request(ctx, http.MethodGet, "/v2/"+repo+"/blobs/"+digest, nil)
	if err != nil {
		return nil, err
	}
	span.Ask(req)
	resp, err := c.do(req, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, err
	}
	if final := resp.Request; final != nil && !sameOrigin(final.URL, c.base) {
		target = final.URL.String()
	}
	return resp, nil
}
