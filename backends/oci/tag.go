// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// Tag implements backends.Tagger: the manifest, or the index, is put under the other tag.
func (c *client) Tag(ctx context.Context, img backends.Image, tag, replaces string) (backends.Image, error) {
	to := img.Ref
	to.Tag, to.Version = tag, ""
	for _, ref := range []backends.Ref{img.Ref, to} {
		if err := c.CheckName(ref); err != nil {
			return backends.Image{}, err
		}
	}
	repo := c.repository(img.Ref)
	ctx = c.scoped(ctx, repo, push)
	m := &move{c: c, from: repo, to: repo, tag: img.Ref.Tag, newTag: tag}
	unlock, err := m.lock(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	f, err := c.meant(ctx, repo, img)
	if err != nil {
		return backends.Image{}, err
	}
	top, err := c.fetch(ctx, repo, f.top)
	if err != nil {
		return backends.Image{}, err
	}
	if err := c.allowed(ctx, repo, to, backends.Source{Replaces: replaces}, f.top); err != nil {
		return backends.Image{}, err
	}
	if err := c.putManifest(ctx, repo, tag, top); err != nil {
		return backends.Image{}, err
	}
	c.manifests.add(repo, tag, c.arch, f)
	if img, err := c.shown(ctx, repo, f.img); err == nil {
		f.img = img
	}
	return c.named(f.img, to), nil
}

// meant returns what is to have another tag: all that the tag of img leads to or, with a
// version in its Ref, the manifest of that one.
// Errors: backends.ErrChanged if the tag means another version.
func (c *client) meant(ctx context.Context, repo string, img backends.Image) (found, error) {
	reference := img.Ref.Tag
	if img.Ref.Version != "" {
		reference = img.Version
	}
	f, err := c.resolve(ctx, repo, reference, c.arch)
	if err == nil && img.Version != f.img.Version && img.Version != f.top {
		err = backends.ErrChanged
	}
	return f, err
}

// Untag implements backends.Untagger. The manifest stays under its digest, until whoever
// runs the registry has it clear away what has no tag.
func (c *client) Untag(ctx context.Context, img backends.Image) error {
	if err := c.CheckName(img.Ref); err != nil {
		return err
	}
	if img.Ref.Tag == "" {
		return fmt.Errorf("%w: a tag is taken away, not a version", fs.ErrInvalid)
	}
	repo := c.repository(img.Ref)
	ctx = c.scoped(ctx, repo, remove)
	unlock, err := c.commits.Lock(ctx, repo+":"+img.Ref.Tag)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := c.resolve(ctx, repo, img.Ref.Tag, c.arch)
	switch {
	case f.top == "" || err != nil && !isAnswer(err):
		return err
	case img.Version != "" && img.Version != f.img.Version && img.Version != f.top:
		return backends.ErrChanged
	}
	err = c.untag(ctx, repo, img.Ref.Tag, f.top)
	if errors.Is(err, errNoDelete) {
		err = fmt.Errorf("%w, and only what deletes can take a tag away", err)
	}
	return err
}

// Versions implements backends.VersionLister. A registry tells the names of tags alone.
func (c *client) Versions(ctx context.Context, ref backends.Ref) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		repo := c.repository(ref)
		errEnough := errors.New("enough")
		err := c.tagPages(ctx, repo, func(tags []string) error {
			for _, tag := range tags {
				if referrersTag.MatchString(tag) || c.manifests.foreign(repo, tag) {
					continue
				}
				ref.Tag = tag
				if !yield(backends.Image{Ref: ref, Size: -1, Format: c.guess(repo, tag)}, nil) {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(backends.Image{}, err)
		}
	}
}
