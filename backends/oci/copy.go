// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// blobWorkers is how many blobs of one image are stored at once, as Docker does it.
const blobWorkers = 3

// Copy implements backends.Copier: the manifest stays as it is, and with it all digests.
// Only blobs that the repository lacks are stored; within one registry they are mounted,
// and nothing travels.
func (c *client) Copy(ctx context.Context, src backends.CopySource, to backends.Ref) (backends.Image, error) {
	from, ok := clientOf(src.Backend)
	if !ok || c.config.Layout == layoutLibrary || from.config.Layout == layoutLibrary {
		return backends.Image{}, fmt.Errorf("%w: it is in no OCI registry", errors.ErrUnsupported)
	}
	if to.Tag == "" || to.Version != "" {
		return backends.Image{}, fmt.Errorf("%w: a copy goes to a tag, not to a version", fs.ErrInvalid)
	}
	for _, name := range []struct {
		c   *client
		ref backends.Ref
	}{{c, to}, {from, src.Image.Ref}} {
		if err := name.c.CheckName(name.ref); err != nil {
			return backends.Image{}, err
		}
	}
	p := &copying{
		c: c, from: from, src: src, to: to, repo: c.repository(to), fromRepo: from.repository(src.Image.Ref),
		near: sameOrigin(from.base, c.base), stored: map[string]int64{},
	}
	ctx = c.scoped(ctx, p.repo, push)
	ctx = from.scoped(ctx, p.fromRepo, pull)
	if err := p.run(ctx); err != nil {
		return backends.Image{}, err
	}
	c.catalog.forget()
	f, err := c.resolve(ctx, p.repo, to.Tag, c.arch)
	if err == nil {
		f.img, err = c.shown(ctx, p.repo, f.img)
	}
	if err != nil { // a login that may write need not be allowed to read
		c.log.Info("what was copied cannot be looked at", "repository", p.repo, "tag", to.Tag, "err", err)
		return c.named(src.Image, to), nil
	}
	return c.named(f.img, to), nil
}

// clientOf returns the client that a backend is, if it is one of this package.
func clientOf(b backends.Backend) (*client, bool) {
	if w, ok := b.(withoutList); ok {
		b = w.Backend
	}
	c, ok := b.(*client)
	return c, ok
}

// A copying is one copy on its way.
type copying struct {
	c, from        *client
	src            backends.CopySource
	to             backends.Ref
	repo, fromRepo string
	near           bool // both are in one registry

	mu     sync.Mutex       // guards the fields below; held while progress is reported
	stored map[string]int64 // by digest
	total  int64
}

func (p *copying) run(ctx context.Context) error {
	top, err := p.top(ctx)
	if err != nil {
		return err
	}
	if now, err := p.c.head(ctx, p.repo, p.to.Tag); err == nil && now == top.digest {
		return nil
	}
	how := p.source(top.digest, int64(len(top.body)))
	memo := uploads.Recall[pushState](&p.c.unsaved, p.repo+":"+p.to.Tag, how, p.c.log)
	if err := p.c.allowed(ctx, p.repo, p.to, how, memo.State.Manifest); err != nil {
		return err
	}
	if p.repo != p.fromRepo || !p.near {
		all, err := gather(top, func(digest string) (manifest, error) { return p.manifest(ctx, digest) })
		if err != nil {
			return err
		}
		if err := p.storeAll(ctx, all.blobs); err != nil {
			return err
		}
		if err := p.c.putAll(ctx, p.repo, all.manifests); err != nil {
			return err
		}
	}
	if err := p.c.publish(ctx, p.repo, p.to, how, memo, top); err != nil {
		return err
	}
	memo.Forget()
	return nil
}

// source is what the methods of a push want to know of something with a digest.
func (p *copying) source(digest string, size int64) backends.Source {
	s := backends.Source{Digest: digest, Size: size, Replaces: p.src.Replaces, Commit: p.src.Commit}
	if p.src.Session != nil {
		s.Session = p.src.Session(digest)
	}
	return s
}

// top returns the manifest that the new tag will lead to: that of the image, or what the
// tag leads to first, with all architectures.
//
// Errors: errors.ErrUnsupported if the image is a blob without a manifest.
func (p *copying) top(ctx context.Context) (manifest, error) {
	img := p.src.Image
	digest := img.Version
	if img.Ref.Tag != "" && (p.src.All || p.near) {
		var f found
		err := p.src.Ask(ctx, func(ctx context.Context) (err error) {
			f, err = p.from.resolve(ctx, p.fromRepo, img.Ref.Tag, p.from.arch)
			return err
		})
		if err == nil && f.img.Version == img.Version { // else one architecture, or an older version, was meant
			digest = f.top
		}
	}
	m, err := p.manifest(ctx, digest)
	if errors.Is(err, fs.ErrNotExist) && img.Digest == img.Version {
		err = fmt.Errorf("%w: %s is no manifest", errors.ErrUnsupported, digest)
	}
	return m, err
}

// manifest asks where the image is for a manifest.
func (p *copying) manifest(ctx context.Context, digest string) (m manifest, err error) {
	if !isDigest(digest) {
		return m, fmt.Errorf("%w: %.80q is no digest", backends.ErrBadAnswer, digest)
	}
	err = p.src.Ask(ctx, func(ctx context.Context) (err error) {
		m, err = p.from.fetch(ctx, p.fromRepo, digest)
		return err
	})
	return m, err
}

// storeAll stores blobs, several at once.
func (p *copying) storeAll(ctx context.Context, blobs []ocispec.Descriptor) error {
	for _, b := range blobs {
		p.total += b.Size
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(blobWorkers)
	for _, b := range blobs {
		g.Go(func() error { return backends.Guard(p.c.log, func() error { return p.store(ctx, b) }) })
	}
	return g.Wait()
}

// store makes a blob one of the repository.
func (p *copying) store(ctx context.Context, b ocispec.Descriptor) error {
	sum := b.Digest.String()
	if !isDigest(sum) || b.Size < 0 {
		return fmt.Errorf("%w: blob of %d bytes with the digest %q", backends.ErrBadAnswer, b.Size, sum)
	}
	if done, err := p.mount(ctx, b); done || err != nil {
		return err
	}
	ref := p.src.Image.Ref
	one := p.source(sum, b.Size)
	if one.Content = bytes.NewReader(b.Data); b.Digest.Algorithm().FromBytes(b.Data) != b.Digest { // most manifests have no data
		one.Content = p.src.Content(backends.Image{Ref: ref, Size: b.Size, Digest: sum, Version: sum})
	}
	one.Progress = func(stored int64) { p.progress(sum, stored) }
	memo := uploads.Recall[pushState](&p.c.unsaved, p.repo+"@"+sum, one, p.c.log)
	if err := p.c.pushLayer(ctx, p.repo, one, memo); err != nil {
		return p.c.notThere(err, p.repo)
	}
	memo.Forget()
	p.c.copied.Put(sum, p.repo)
	return nil
}

// mount takes a blob over from the repository that it is copied from, or from one to which
// an earlier copy brought it: images often have layers in common. If the registry does not
// want to, the bytes have to travel.
func (p *copying) mount(ctx context.Context, b ocispec.Descriptor) (done bool, err error) {
	from, known := p.fromRepo, p.near
	if !known {
		from, known = p.c.copied.Get(b.Digest.String())
	}
	if !known || from == p.repo {
		return false, nil
	}
	err = p.c.mount(p.c.scoped(ctx, from, pull), from, p.repo, b.Digest.String())
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	p.progress(b.Digest.String(), b.Size)
	return true, nil
}

func (p *copying) progress(digest string, stored int64) {
	if p.src.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored[digest] = stored
	var all int64
	for _, n := range p.stored {
		all += n
	}
	p.src.Progress(all, p.total)
}

// Contents are what a manifest leads to.
type contents struct {
	manifests []manifest           // below it, each after those that it needs
	blobs     []ocispec.Descriptor // each once
}

// gather reads what a manifest leads to. Layers that are elsewhere on the web, and may not
// be passed on, are none of it.
//
// Errors: those of fetch; backends.ErrBadAnswer.
func gather(top manifest, fetch func(digest string) (manifest, error)) (all contents, err error) {
	seen := map[string]bool{}
	var walk func(m manifest, depth int) error
	walk = func(m manifest, depth int) error {
		var doc struct {
			Config    *ocispec.Descriptor  `json:"config"`
			Layers    []ocispec.Descriptor `json:"layers"`
			Manifests []ocispec.Descriptor `json:"manifests"`
		}
		if err := httpx.JSON(bytes.NewReader(m.body), &doc); err != nil {
			return err
		}
		if doc.Config != nil {
			doc.Layers = append(doc.Layers, *doc.Config)
		}
		for _, b := range doc.Layers {
			if sum := b.Digest.String(); !seen[sum] && len(b.URLs) == 0 {
				seen[sum] = true
				all.blobs = append(all.blobs, b)
			}
		}
		for _, d := range doc.Manifests {
			sum := d.Digest.String()
			if seen[sum] {
				continue
			}
			seen[sum] = true
			if depth == 0 || !isDigest(sum) {
				return fmt.Errorf("%w: an index with %.80q, %d deep", backends.ErrBadAnswer, sum, maxDepth-depth)
			}
			child, err := fetch(sum)
			if err != nil {
				return err
			}
			child.mediaType = cmp.Or(child.mediaType, d.MediaType)
			if err := walk(child, depth-1); err != nil {
				return err
			}
			all.manifests = append(all.manifests, child)
		}
		return nil
	}
	err = walk(top, maxDepth)
	return all, err
}

// putAll stores manifests under their digests.
func (c *client) putAll(ctx context.Context, repo string, all []manifest) error {
	for _, m := range all {
		if err := c.putManifest(ctx, repo, m.digest, m); err != nil {
			return err
		}
	}
	return nil
}
