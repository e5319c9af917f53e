// SPDX-License-Identifier: Apache-2.0

package backendtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// The compiler checks, and the reader sees first, what this backend can do.
var (
	_ backends.Backend = (*client)(nil)
	_ backends.Lister  = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for
// type = "plain", less the keys that all types share (docs/configuration.md).
type Config struct {
	URL string `toml:"url"` // required
}

type client struct {
	url  string
	http *http.Client // the one it was given, for every request
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "plain", Open: Open, Needs: "url"}

// Open is the opener. It sends no request: a service that is
// down must not keep the others from being mounted.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err // names an unknown key, and the one that was meant
	}
	if cfg.URL == "" {
		return nil, fmt.Errorf("%w: remote %s: url is required", fs.ErrInvalid, env.Remote)
	}
	return &client{url: cfg.URL, http: env.HTTP}, nil
}

// Address implements backends.Addressed: some messages name it.
func (c *client) Address() string { return c.url }

func (c *client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	return req, nil
}

// path is the address of an image. Ref.String escapes what a name means to us, and
// EscapedPath that for the URL.
func path(ref backends.Ref) string {
	ref.Version = ""
	return "/image/" + (&url.URL{Path: ref.String()}).EscapedPath()
}

func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	var resp *http.Response
	for _, method := range []string{http.MethodHead, http.MethodGet} { // what stands between may know no HEAD
		req, err := c.request(ctx, method, path(ref), nil)
		if err != nil {
			return backends.Image{}, err
		}
		resp, err = httpx.Do(c.http, req)
		if err == nil {
			resp.Body.Close()
			break
		}
		if method == http.MethodGet || !httpx.HeadRefused(err) {
			return backends.Image{}, err // a sentinel already: httpx.Do saw the status
		}
	}
	version, size := resp.Header.Get("ETag"), resp.ContentLength
	if version == "" || size < 0 {
		return backends.Image{}, fmt.Errorf("%w: an answer without ETag and length", backends.ErrBadAnswer)
	}
	if ref.Version != "" && ref.Version != version {
		return backends.Image{}, fmt.Errorf("%w: version %q", fs.ErrNotExist, ref.Version)
	}
	ref.Version = "" // what was asked for, as the service spells it
	img := backends.Image{Ref: ref, Size: size, Version: version, Format: resp.Header.Get("Image-Format")}
	img.Modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	img.Digest = "sha256:" + strings.Trim(version, `"`) // which is what Plain's ETags are
	return img, nil
}

func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return http.NoBody, nil
	}
	req, err := c.request(ctx, http.MethodGet, path(img.Ref), nil)
	if err != nil {
		return nil, err
	}
	part := ranged.Span{Off: off, N: n}
	part.Ask(req)
	req.Header.Set("If-Match", img.Version)
	resp, err := httpx.Do(c.http, req, http.StatusRequestedRangeNotSatisfiable)
	if errors.Is(err, fs.ErrExist) { // 412: another version by now
		return nil, backends.ErrChanged
	}
	if err != nil {
		return nil, err
	}
	return part.Body(resp, img.Size)
}

// A file is what Plain's listing tells: "team/tool:1.0", or a folder "team/sub/".
type file struct{ Name, Format string }

func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		files, err := c.files(ctx, collection)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		for _, f := range files {
			if entry, err := f.entry(); !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

func (c *client) files(ctx context.Context, collection string) (files []file, err error) {
	req, err := c.request(ctx, http.MethodGet, "/list/"+(&url.URL{Path: collection}).EscapedPath(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := httpx.Do(c.http, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	err = httpx.JSON(resp.Body, &files)
	return files, err
}

func (f file) entry() (backends.Entry, error) {
	if collection, ok := strings.CutSuffix(f.Name, "/"); ok {
		return backends.Entry{Collection: collection}, nil
	}
	ref, err := backends.ParseRef(f.Name)
	if err != nil {
		return backends.Entry{}, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	return backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: f.Format}}, nil
}
