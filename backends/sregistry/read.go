// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// A manifest is what the server tells of one container.
type manifest struct {
	ID         word            `json:"id"`
	Name       string          `json:"name"`
	Tag        string          `json:"tag"`
	Version    string          `json:"version"`
	Image      string          `json:"image"` // where the old store has it; a secret is in it
	Frozen     bool            `json:"frozen"`
	AddDate    string          `json:"add_date"`
	ModifyDate string          `json:"modify_date"`
	Metadata   json.RawMessage `json:"metadata"`
	Collection json.RawMessage `json:"collection"` // its name; older servers send more
}

// manifest asks for the container, and once more signed where the collection is
// private. One that was refused is not asked for again for a while.
func (c *client) manifest(ctx context.Context, n name) (manifest, error) {
	var m manifest
	ask := func(auth string) error {
		req, err := httpx.NewRequest(ctx, http.MethodGet, c.url("/api/container/"+n.String()), nil)
		if err != nil {
			return err
		}
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		m = manifest{}
		return c.object(req, &m)
	}
	if err := c.refusals.of(ctx, c.login, n); err != nil {
		return m, err
	}
	var err error
	if _, closed := c.signedOnly.Get(n.collection); !closed {
		if err = c.asUser(ctx, ask); err == nil || !c.wantsSignature(ctx, err) {
			c.refusals.note(ctx, c.login, n, err)
			return checked(m, n, err)
		}
	}
	open := err
	if err = c.signed(ctx, kindPull, n, ask); err == nil {
		c.signedOnly.Put(n.collection, struct{}{})
	} else if errors.Is(err, backends.ErrUnauthorized) && !errors.Is(err, backends.ErrNoFile) && shut(open) {
		err = open
	}
	c.refusals.note(ctx, c.login, n, err)
	return checked(m, n, err)
}

// wantsSignature reports whether err, of a request without one, may go away with it. The
// view of a private collection breaks over the framework's own login.
func (c *client) wantsSignature(ctx context.Context, err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return c.login.known() && !errors.Is(err, backends.ErrRateLimited)
	case http.StatusInternalServerError:
		return c.login.trusted(ctx) != ""
	}
	return false
}

// checked looks whether m answers the question for n. The server may spell a
// name in its own case.
func checked(m manifest, n name, err error) (manifest, error) {
	switch {
	case err != nil:
		return manifest{}, err
	case m.ID == "" || m.Name == "" || m.Tag == "":
		return manifest{}, fmt.Errorf("%w: a manifest without id, name or tag", backends.ErrBadAnswer)
	case !strings.EqualFold(m.Name, n.container) && !n.built(collectionIn(m.Collection), m.Name) || !strings.EqualFold(m.Tag, n.tag):
		return manifest{}, fmt.Errorf("%w: a manifest of %.100q for %q", backends.ErrBadAnswer, m.Name+":"+m.Tag, n.container+":"+n.tag)
	}
	return m, nil
}

// Stat reads the manifest. Where the image lies in the object store one more
// request, of one byte, tells its size; the old store tells it with the image.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	if err := c.CheckName(ref); err != nil {
		return backends.Image{}, err
	}
	n := split(ref)
	if n.tag == "" {
		tag, err := c.tagOf(ctx, n, ref.Version)
		if err != nil {
			return backends.Image{}, err
		}
		n.tag = tag
	}
	m, err := c.manifest(ctx, n)
	if err != nil {
		return backends.Image{}, err
	}
	img := c.image(m, n)
	if want, _ := parseVersion(ref.Version); want != "" && want != img.Version {
		// A name keeps one image for each tag: the version may have another.
		if n.tag, err = c.tagOf(ctx, n, want); err != nil {
			return backends.Image{}, err
		}
		if m, err = c.manifest(ctx, n); err != nil {
			return backends.Image{}, err
		}
		if img = c.image(m, n); img.Version != want {
			return backends.Image{}, backends.NotFound("version %q", ref.Version)
		}
	}
	c.size(ctx, &img)
	return img, ctx.Err()
}

// tagOf looks for the tag of n's name that has the version.
func (c *client) tagOf(ctx context.Context, n name, version string) (string, error) {
	want, _ := parseVersion(version)
	found, err := c.containers(ctx, "/api/container/search/collection/"+escape(n.collection)+"/name/"+escape(n.container))
	if err != nil {
		return "", err
	}
	for _, f := range found {
		if have, _ := parseVersion(f.Version); have == want && f.name() == (name{n.collection, n.container, f.Tag}) {
			return f.Tag, nil
		}
	}
	return "", backends.NotFound("no tag has the version %q", version)
}

// image says in our words what m says. Its size is not known.
func (c *client) image(m manifest, n name) backends.Image {
	if n.tag = m.Tag; strings.EqualFold(m.Name, n.container) {
		n.container = m.Name
	}
	img := backends.Image{Ref: n.ref(), Size: -1, URL: c.url("/containers/" + escape(string(m.ID))), Labels: labels(m.Metadata)}
	img.Version, img.Digest = parseVersion(m.Version)
	if img.Version == "" { // until a worker of the server has looked at the file
		img.Version = "id-" + string(m.ID)
		if m.AddDate != "" {
			img.Version += "-" + m.AddDate
		}
	}
	for _, date := range []string{m.ModifyDate, m.AddDate} {
		if t, err := time.Parse(time.RFC3339Nano, date); err == nil && img.Modified.IsZero() {
			img.Modified = t
		}
	}
	return img
}

// labels reads those of the image that the server keeps.
func labels(metadata json.RawMessage) map[string]string {
	var kept struct {
		Labels map[string]any `json:"labels"`
	}
	if json.Unmarshal(metadata, &kept) != nil || len(kept.Labels) == 0 {
		return nil
	}
	all := make(map[string]string, len(kept.Labels))
	for key, value := range kept.Labels {
		if text, ok := value.(string); ok {
			all[key] = text
		}
	}
	return all
}

// size fills in the size, if it can be had. A bare MD5 is a sign of the old
// store, where asking would cost one of the week's downloads.
func (c *client) size(ctx context.Context, img *backends.Image) {
	key := locationKey(*img)
	if p, ok := c.locations.get(key); ok {
		img.Size = p.size
		return
	}
	if !strings.HasPrefix(img.Digest, "sha256:") || !split(img.Ref).inLibrary() {
		return
	}
	resp, err := c.imageFile(ctx, split(img.Ref), ranged.Span{N: 1})
	if err != nil {
		c.noted(key, err)
		c.log.Debug("the size of an image is not known before it is opened", "image", img.Ref.String(), "err", err)
		return
	}
	defer resp.Body.Close()
	if p, err := c.found(resp); err == nil && p.size >= 0 {
		c.locations.put(key, p)
		img.Size = p.size
	}
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
	s, key := ranged.Span{Off: off, N: n}, locationKey(img)
	place, known := c.locations.get(key)
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
	key := locationKey(img)
	resp, err := c.imageFile(ctx, split(img.Ref), s)
	if err != nil {
		c.noted(key, err)
		if !isNotHere(err) && !shut(err) && !errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil || statusOf(err) == 0 {
			return nil, err
		}
		body, oldErr := c.openOld(ctx, m, img, s)
		if errors.Is(oldErr, fs.ErrNotExist) && !isNotHere(err) {
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
	c.locations.put(key, p)
	return s.Body(resp, p.size)
}

// isNotHere reports whether err says that the object store does not have it, or
// that there is no such store.
func isNotHere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported)
}

// noted remembers that an image is not in the object store.
func (c *client) noted(key string, err error) {
	if isNotHere(err) {
		c.locations.put(key, location{old: true, size: -1})
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
func (c *client) fetch(ctx context.Context, p location, s ranged.Span) (*http.Response, error) {
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
	if err := decode(resp.Header, text, new(any)); err != nil {
		return err
	}
	return fmt.Errorf("%w: JSON in place of an image", backends.ErrBadAnswer)
}

// found is the place that resp came from.
func (c *client) found(resp *http.Response) (location, error) {
	p := location{size: -1, etag: resp.Header.Get("ETag")}
	if final := resp.Request; final != nil && final.URL != nil && backends.Origin(final.URL) != backends.Origin(c.home) {
		p.target = final.URL.String()
	}
	var err error
	p.size, err = ranged.Size(resp)
	return p, err
}
