// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// guess returns the format that a tag most likely has.
func (c *client) guess(repo, tag string) string {
	usual := backends.FormatSIF
	if c.preset.containers {
		usual = backends.FormatArchive
	}
	format := c.manifests.guess(repo, tag, usual)
	if format != backends.FormatArchive || c.config.Show == backends.FormatArchive || c.ListsArchives() {
		return format
	}
	if f, ok := c.manifests.last(repo, tag); ok {
		if f, ok := c.layered.shapes.Get(f.img.Version); ok && f.why != "" {
			return format
		}
	}
	return backends.FormatSIF
}

// openArchive reads a container image: what no blob is, is made here, and the
// blobs are read by their digests.
func (c *client) openArchive(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	repo := c.repository(img.Ref)
	ctx = c.scoped(ctx, repo, pull)
	a, err := c.archive(ctx, repo, img.Version)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, c.gone(ctx, img, err)
	case err != nil:
		return nil, err
	case a.Digest() != img.Digest || a.Size() != img.Size && img.Size >= 0:
		return nil, fmt.Errorf("%w: the version and the digest are of two images", backends.ErrChanged)
	case n == 0 || off >= a.Size():
		return http.NoBody, nil
	}
	body, err := a.Open(off, n, func(digest string, size, off, n int64) (io.ReadCloser, error) {
		return c.part(ctx, repo, digest, ranged.Span{Off: off, N: n}, size)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.gone(ctx, img, err)
	}
	return body, err
}

// archive returns the layout of a container image, from its manifest.
func (c *client) archive(ctx context.Context, repo, digest string) (*archive.Archive, error) {
	if a := c.archives.get(digest); a != nil {
		return a, nil
	}
	if !isDigest(digest) {
		return nil, backends.NotFound("version %.80q", digest)
	}
	m, err := c.fetch(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	a, err := archive.New(m.body)
	if err == nil {
		c.archives.put(digest, a)
	}
	return a, err
}

// maxArchives bounds the memory of archives: some 10 KiB each, as a rule, for a
// header of each layer. A manifest can have tens of thousands of those, and
// annotations: then it is maxHeld bytes that bound it.
const (
	maxArchives = 256
	maxHeld     = 64 << 20
)

// archives remembers the layouts of container images, by the digests of their
// manifests. The zero value is empty.
type archives struct {
	mu   sync.Mutex // guards the fields below
	all  map[string]*archive.Archive
	held int64 // bytes
}

func (s *archives) get(digest string) *archive.Archive {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[digest]
}

func (s *archives) put(digest string, a *archive.Archive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[digest] != nil {
		return // the same
	}
	held := a.Held()
	if s.all == nil || len(s.all) >= maxArchives || s.held+held > maxHeld {
		s.all, s.held = map[string]*archive.Archive{}, 0
	}
	s.all[digest] = a
	s.held += held
}
