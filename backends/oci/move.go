// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
)

// errNoMount says that the blobs would have to travel.
var errNoMount = fmt.Errorf("%w: the registry does not take blobs over from another repository", errors.ErrUnsupported)

// Move implements backends.Mover: the new tag leads to the same manifest, and then the
// old one is taken away. Into another repository the blobs are mounted. If the old tag
// cannot be taken away, the new one goes back to what it was.
func (c *client) Move(ctx context.Context, img backends.Image, to backends.Ref, replaces string) (backends.Image, error) {
	for _, ref := range []backends.Ref{img.Ref, to} {
		if err := c.CheckName(ref); err != nil {
			return backends.Image{}, err
		}
	}
	if c.config.Layout == layoutLibrary || img.Ref.Tag == "" || to.Tag == "" || to.Version != "" {
		return backends.Image{}, fmt.Errorf("%w: only tags are moved", errors.ErrUnsupported)
	}
	m := &move{c: c, from: c.repository(img.Ref), to: c.repository(to), tag: img.Ref.Tag, newTag: to.Tag}
	unlock, err := m.lock(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	ctx = c.scoped(c.scoped(ctx, m.from, remove), m.to, remove)
	f, err := c.resolve(ctx, m.from, m.tag, c.arch)
	switch {
	case err != nil:
		return backends.Image{}, err
	case img.Version != f.img.Version && img.Version != f.top:
		return backends.Image{}, backends.ErrChanged
	}
	if err := c.allowed(ctx, m.to, to, backends.Source{Replaces: replaces}, ""); err != nil {
		return backends.Image{}, err
	}
	if err := m.run(ctx, f.top); err != nil {
		return backends.Image{}, err
	}
	c.catalog.forget()
	c.manifests.add(m.to, m.newTag, c.arch, f)
	if img, err := c.shown(ctx, m.to, f.img); err == nil {
		f.img = img
	}
	return c.named(f.img, to), nil
}

// A move is one on its way.
type move struct {
	c           *client
	from, to    string // repositories
	tag, newTag string
}

// lock locks both tags, always in the same order.
func (m *move) lock(ctx context.Context) (unlock func(), err error) {
	one, two := m.from+":"+m.tag, m.to+":"+m.newTag
	first, err := m.c.commits.Lock(ctx, min(one, two))
	if err != nil || one == two {
		return first, err
	}
	second, err := m.c.commits.Lock(ctx, max(one, two))
	if err != nil {
		first()
		return nil, err
	}
	return func() { second(); first() }, nil
}

// run gives what digest is the new tag, and takes the old one from it.
func (m *move) run(ctx context.Context, digest string) error {
	c := m.c
	if err := c.deletes(ctx, m.from); errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: a new name takes the old one away: %v", fs.ErrPermission, err) // a copy would leave both
	} else if err != nil {
		return err
	}
	top, err := c.fetch(ctx, m.from, digest)
	if err != nil {
		return err
	}
	if m.to != m.from {
		if err := m.take(ctx, top); err != nil {
			return err
		}
	}
	var before *manifest
	switch old, err := c.get(ctx, m.to, m.newTag); {
	case err == nil:
		before = &old
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := c.putManifest(ctx, m.to, m.newTag, top); err != nil {
		return err
	}
	err = m.untag(ctx, digest)
	if err != nil {
		m.undo(ctx, before, digest)
	}
	return err
}

// untag takes the old tag away. Within one repository the new one needs the manifest.
func (m *move) untag(ctx context.Context, digest string) error {
	if m.from == m.to {
		return m.c.untag(ctx, m.from, m.tag, digest)
	}
	return m.c.drop(ctx, m.from, m.tag, digest)
}

// undo makes the new tag what it was.
func (m *move) undo(ctx context.Context, before *manifest, digest string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime)
	defer cancel()
	var err error
	if before != nil {
		err = m.c.putManifest(ctx, m.to, m.newTag, *before)
	} else {
		err = m.c.untag(ctx, m.to, m.newTag, digest)
	}
	if err != nil {
		m.c.log.Error("a tag that could not be moved has both names", "repository", m.to, "tag", m.newTag, "err", err)
	}
}

// take brings all that a manifest needs into the other repository.
func (m *move) take(ctx context.Context, top manifest) error {
	all, err := gather(top, func(digest string) (manifest, error) { return m.c.fetch(ctx, m.from, digest) })
	if err != nil {
		return err
	}
	for _, b := range all.blobs {
		if err := m.c.mount(ctx, m.from, m.to, b.Digest.String()); err != nil {
			return err
		}
	}
	return m.c.putAll(ctx, m.to, all.manifests)
}

// mount makes a blob of the one repository one of the other (OCI Distribution
// Specification, "Mounting a blob from another repository").
//
// Errors: errNoMount if the registry wants the bytes.
func (c *client) mount(ctx context.Context, from, to, digest string) error {
	if !isDigest(digest) {
		return errNoMount
	}
	if _, err := c.blobSize(ctx, to, digest); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target := "/v2/" + to + "/blobs/uploads/?mount=" + url.QueryEscape(digest) + "&from=" + url.QueryEscape(from)
	req, err := c.request(ctx, http.MethodPost, target, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		// It wants the bytes. The upload that it has begun for them it forgets by itself.
		return errNoMount
	}
	return nil
}
