// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// A container is what the service tells of one image. It has no exact size: what
// it calls size_mb is that of the unpacked image, or none.
type container struct {
	Name    string `json:"name"` // "org/repo"
	Branch  string `json:"branch"`
	Commit  string `json:"commit"`
	Tag     string `json:"tag"`
	Version string `json:"version"`
	Image   string `json:"image"` // where the file is
}

// ask asks the service for one image, by its version or its tag: it takes either
// after the colon.
func (c *client) ask(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	key, version := ref.Tag, parseVersion(ref.Version)
	if ref.Version != "" {
		if key = version; version == "" {
			return backends.Image{}, backends.NotFound("no build has the version %.80q", ref.Version)
		}
	}
	var got container
	at := &url.URL{Scheme: c.api.Scheme, Host: c.api.Host, Path: c.api.Path + "/api/container/" + ref.Repository() + ":" + key}
	if err := c.get(ctx, at, &got); err != nil {
		return backends.Image{}, err
	}
	img, err := c.described(ref, key, got)
	if err == nil && img.Size < 0 {
		img.Size = c.measure(ctx, img)
		err = ctx.Err()
	}
	return img, err
}

// measure asks for one byte of an image, for the size that comes with it; -1 if
// that cannot be had now.
func (c *client) measure(ctx context.Context, img backends.Image) int64 {
	at, _ := c.locations.get(img)
	resp, err := c.ranged(ctx, at.url, ranged.Span{N: 1})
	if err != nil {
		c.log.Debug("the size of an image is not known before it is opened", "image", img.Ref.String(), "err", err)
		return -1
	}
	defer resp.Body.Close()
	return c.learn(img, resp)
}

// get decodes the service's answer. A page is no answer of it, whatever its
// status: the address may have got another owner.
func (c *client) get(ctx context.Context, at *url.URL, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := httpx.Do(c.http, req, http.StatusNotFound)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case ranged.IsPage(resp.Header):
		return httpx.ErrPage
	case resp.StatusCode == http.StatusNotFound:
		return httpx.Error(resp)
	}
	return httpx.JSON(resp.Body, v)
}

// described checks what the service says for ref, which it was asked for as key,
// and remembers where the file is.
func (c *client) described(ref backends.Ref, key string, got container) (backends.Image, error) {
	version, asked := parseVersion(got.Version), parseVersion(key)
	if got.Version == "" {
		version = stemOf(got.Image)
	}
	byVersion := asked != "" && asked == version
	switch {
	case got.Name != ref.Repository() || got.Tag == "" || version == "":
		return backends.Image{}, fmt.Errorf("%w: an answer about %.100q for %q", backends.ErrBadAnswer, got.Name+":"+got.Tag, ref.Repository()+":"+key)
	case ref.Version != "" && !byVersion:
		return backends.Image{}, fmt.Errorf("%w: an answer about another version", backends.ErrBadAnswer)
	case got.Tag != key && key != backends.DefaultTag && !byVersion:
		return backends.Image{}, fmt.Errorf("%w: an answer about tag %.100q for %q", backends.ErrBadAnswer, got.Tag, key)
	}
	at, err := c.target(got.Image)
	if err != nil {
		return backends.Image{}, err
	}
	b := &build{tag: got.Tag, branch: got.Branch, commit: got.Commit, version: version, file: at.Path, size: -1}
	if _, format := backends.CutExt(b.file); format == "" {
		return backends.Image{}, fmt.Errorf("%w: the image is in no image's file", backends.ErrBadAnswer)
	}
	img := c.image(new(index), &repo{org: ref.Collection, name: ref.Name}, b)
	img.URL = ""
	if ref.Version == "" && byVersion && got.Tag != key {
		img.Ref.Tag = ref.Tag // its own tag may mean another build
	}
	if err := checkName(img.Ref); err != nil {
		return backends.Image{}, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	img.Size = c.locations.put(img, at)
	return img, nil
}

// target reads the address of a file in an answer. What lies in the archive is
// read from where the archive is said to be.
func (c *client) target(address string) (*url.URL, error) {
	// The service escapes nothing.
	if file, ok := strings.CutPrefix(address, archiveURL+"/"); ok {
		if !isPath(file) {
			return nil, fmt.Errorf("%w: no address of a file", backends.ErrBadAnswer)
		}
		return c.locate(file), nil
	}
	return httpx.Target(c.api, address)
}

// locations are where the files of images are that the service told of. The zero
// value is empty.
type locations struct{ all bounded.Map[string, location] }

type location struct {
	url  *url.URL
	size int64 // -1 until it was read
}

func locationKey(img backends.Image) string { return img.Ref.Repository() + "@" + img.Version }

func (l *locations) get(img backends.Image) (location, bool) { return l.all.Get(locationKey(img)) }

// put remembers where img is and returns its size, if that was learnt before.
func (l *locations) put(img backends.Image, at *url.URL) int64 {
	size := int64(-1)
	l.all.Update(locationKey(img), func(old location, ok bool) (location, bool) {
		if ok {
			size = old.size
		}
		return location{at, size}, true
	})
	return size
}

func (l *locations) measured(img backends.Image, size int64) {
	l.all.Update(locationKey(img), func(old location, ok bool) (location, bool) {
		return location{old.url, size}, ok
	})
}
