// SPDX-License-Identifier: Apache-2.0

package backendtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

var (
	_ backends.Pusher  = (*client)(nil)
	_ backends.Deleter = (*client)(nil)
)

func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	text, err := io.ReadAll(io.NewSectionReader(src.Content, 0, src.Size))
	if err != nil {
		return backends.Image{}, err
	}
	if "sha256:"+strings.Trim(etag(text), `"`) != src.Digest {
		return backends.Image{}, backends.ErrCorrupt
	}
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err
	}
	req, err := c.request(ctx, http.MethodPut, path(ref), bytes.NewReader(text))
	if err != nil {
		return backends.Image{}, err
	}
	req.Header.Set("Image-Format", src.Format)
	switch src.Replaces {
	case "":
		req.Header.Set("If-None-Match", "*")
	case backends.ReplaceAny:
	default:
		req.Header.Set("If-Match", src.Replaces)
	}
	if err := src.MayCommit(); err != nil {
		return backends.Image{}, err // it was given up meanwhile
	}
	resp, err := httpx.Do(c.http, req)
	if errors.Is(err, fs.ErrExist) && src.Replaces != "" {
		return backends.Image{}, backends.ErrChanged
	}
	if err != nil {
		return backends.Image{}, err
	}
	resp.Body.Close()
	if src.Progress != nil {
		src.Progress(src.Size)
	}
	return c.Stat(ctx, ref)
}

func (c *client) Delete(ctx context.Context, img backends.Image) error {
	req, err := c.request(ctx, http.MethodDelete, path(img.Ref), nil)
	if err != nil {
		return err
	}
	req.Header.Set("If-Match", img.Version)
	resp, err := httpx.Do(c.http, req)
	if errors.Is(err, fs.ErrExist) {
		return backends.ErrChanged
	}
	if err == nil {
		resp.Body.Close()
	}
	return err
}
