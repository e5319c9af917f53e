// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/sregfs/sregfs/backends"
)

// Tag implements backends.Tagger. A library cannot compare and swap: what is replaced is
// looked at right before the request that moves the tag.
//
// Errors: those of backends.Tagger; errors.ErrUnsupported for the container images of a
// registry behind the library.
func (c *client) Tag(ctx context.Context, img backends.Image, tag, replaces string) (backends.Image, error) {
	to := img.Ref
	to.Tag, to.Version = tag, ""
	if err := errors.Join(c.CheckName(img.Ref), c.CheckName(to)); err != nil {
		return backends.Image{}, err
	}
	token, err := c.login.get(ctx)
	if err != nil {
		return backends.Image{}, err
	}
	if token == "" {
		return backends.Image{}, c.login.missing()
	}
	unlock, err := c.commits.Lock(ctx, split(to).String())
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	m, err := c.tagged(ctx, img)
	if err != nil {
		return backends.Image{}, err
	}
	switch now, err := c.Stat(ctx, to); {
	case errors.Is(err, fs.ErrNotExist):
		err = backends.Source{Replaces: replaces}.CreateAllowed()
		if err != nil {
			return backends.Image{}, err
		}
	case err != nil:
		return backends.Image{}, err
	case now.Digest == img.Digest && now.Digest != "":
		return now, nil
	default:
		if err := (backends.Source{Replaces: replaces}).ReplaceAllowed(to, now); err != nil {
			return backends.Image{}, err
		}
	}
	c.listing.forget()
	if err := c.setTag(ctx, m.Container, tag, m.ID); err != nil {
		return backends.Image{}, err
	}
	return c.Stat(ctx, to)
}

// tagged returns the image that is to have another tag.
// Errors: backends.ErrChanged if its name means another one.
func (c *client) tagged(ctx context.Context, img backends.Image) (image, error) {
	reference := img.Ref.Tag
	if img.Ref.Version != "" {
		reference = hashOf(img.Version)
	}
	m, err := c.find(ctx, split(img.Ref), reference, c.arch)
	if errors.Is(err, fs.ErrNotExist) {
		if _, other := c.Stat(ctx, img.Ref); other == nil {
			return m, fmt.Errorf("%w: it is in the registry behind the library, which has tags of its own", errors.ErrUnsupported)
		}
	}
	if err != nil {
		return m, err
	}
	if now, _, _ := versionOf(m.Hash); img.Version != now {
		return m, backends.ErrChanged
	}
	if m.Container == "" {
		return m, fmt.Errorf("%w: the library does not say in which container the image is", backends.ErrBadAnswer)
	}
	return m, nil
}

// setTag gives the image of that id, in the container of that id, a tag.
func (c *client) setTag(ctx context.Context, container, tag, id string) error {
	version, err := c.version(ctx)
	if err != nil {
		return err
	}
	escaped, err := idPath(container)
	if err != nil {
		return err
	}
	if version.atLeast(withArchTags) {
		return c.ask(ctx, http.MethodPost, tagsV2+escaped, map[string]string{"Arch": c.arch, "Tag": tag, "ImageID": id}, nil)
	}
	return c.ask(ctx, http.MethodPost, tagsV1+escaped, map[string]string{"Tag": tag, "ImageID": id}, nil)
}
