// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// Delete removes the image that the tag means. A library has no request that takes
// away a tag alone, it deletes an image with all its tags: one that has others is
// not deleted. That the tag still means img.Version is checked right before.
//
// Errors: those of backends.Deleter; errors.ErrUnsupported if the image has other
// tags.
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	if err := c.CheckName(img.Ref); err != nil {
		return err
	}
	if img.Ref.Tag == "" {
		return fmt.Errorf("%w: only a tag can be deleted", fs.ErrInvalid)
	}
	token, err := c.login.get(ctx)
	if err != nil {
		return err
	}
	if token == "" {
		return c.login.missing()
	}
	n := split(img.Ref)
	unlock, err := c.commits.Lock(ctx, n.String())
	if err != nil {
		return err
	}
	defer unlock()
	m, err := c.find(ctx, n, n.tag, c.arch)
	if err != nil {
		return err
	}
	if now, _, _ := versionOf(m.Hash); img.Version != "" && img.Version != now {
		return backends.ErrChanged
	}
	others, err := c.otherTags(ctx, n, m)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return fmt.Errorf("%w: the library deletes an image with all its tags, and this one has others: %s",
			errors.ErrUnsupported, strings.Join(others[:min(len(others), 10)], ", "))
	}
	c.listing.forget()
	arch := m.Arch
	if arch == "" {
		arch = c.arch
	}
	path := imagesPath + n.path() + ":" + url.PathEscape(m.Hash) + "?arch=" + url.QueryEscape(arch)
	return c.ask(ctx, http.MethodDelete, path, nil, nil)
}

// otherTags returns the tags of an image besides n's: by what its container says,
// and what it says itself.
func (c *client) otherTags(ctx context.Context, n name, m image) ([]string, error) {
	var k container
	if err := c.get(ctx, containersPath+"/"+n.path(), &k); err != nil {
		return nil, err
	}
	var tags []string
	for arch, byTag := range k.ArchTags {
		for tag, id := range byTag {
			if id == m.ID && (tag != n.tag || m.Arch != "" && arch != m.Arch) {
				tags = append(tags, tag)
			}
		}
	}
	for tag, id := range k.ImageTags {
		if id == m.ID && tag != n.tag {
			tags = append(tags, tag)
		}
	}
	for _, tag := range m.Tags {
		if tag != n.tag {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}
