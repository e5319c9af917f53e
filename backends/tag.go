// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
)

// Tag is Tagger.Tag. That the tag means the same already is success, whatever replaces
// says: a try was accepted whose answer was lost, or somebody else has done it.
//
// Errors: those of Tagger; ErrReadOnly.
func (c *Client) Tag(ctx context.Context, img Image, tag, replaces string) (Image, error) {
	to := img.Ref
	to.Tag, to.Version = tag, ""
	tagger, ok := c.backend.(Tagger)
	switch {
	case !ok:
		return Image{}, c.fail("tag", to, c.unsupported(`give an image another tag ("sreg cp" copies it)`))
	case c.opts.ReadOnly:
		return Image{}, c.fail("tag", to, ErrReadOnly)
	}
	if err := c.checkTarget(to); err != nil {
		return Image{}, c.fail("tag", to, err)
	}
	now, err := once(ctx, c, nil, func(ctx context.Context) (Image, error) { return tagger.Tag(ctx, img, tag, replaces) })
	if errors.Is(err, fs.ErrExist) || errors.Is(err, ErrChanged) {
		if there, statErr := c.Stat(ctx, to); statErr == nil && sameImage(there, img) {
			return there, nil
		}
	}
	if err == nil {
		err = checkImage(now)
	}
	return now, c.fail("tag", to, err)
}

// sameImage reports whether two images have the same bytes for certain.
func sameImage(a, b Image) bool {
	return a.Version == b.Version && a.Version != "" || a.Digest == b.Digest && a.Digest != ""
}

// Untag is Untagger.Untag. What the first try took away without an answer reaching us
// is success too.
//
// Errors: those of Untagger; ErrReadOnly.
func (c *Client) Untag(ctx context.Context, img Image) error {
	untagger, ok := c.backend.(Untagger)
	switch {
	case !ok:
		return c.fail("untag", img.Ref, fmt.Errorf(`%w: %s keeps an image no longer than its tag ("sreg rm" deletes both)`, errors.ErrUnsupported, c.name))
	case c.opts.ReadOnly:
		return c.fail("untag", img.Ref, ErrReadOnly)
	}
	if err := c.checkName(img.Ref); err != nil {
		return c.fail("untag", img.Ref, err)
	}
	tries := 0
	_, err := once(ctx, c, nil, func(ctx context.Context) (struct{}, error) {
		tries++
		return struct{}{}, untagger.Untag(ctx, img)
	})
	if tries > 1 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.fail("untag", img.Ref, err)
}

// Versions is VersionLister.Versions. It is retried only while it has yielded nothing.
// Versions with impossible names are left out.
func (c *Client) Versions(ctx context.Context, ref Ref) iter.Seq2[Image, error] {
	ref.Tag, ref.Version = "", ""
	subject := ref.String()
	l, ok := c.backend.(VersionLister)
	if !ok {
		return Fail[Image](c.failAll("tags", subject, c.unsupported("list the tags of one image")))
	}
	named := ref
	named.Tag = DefaultTag
	if err := c.checkName(named); err != nil {
		return Fail[Image](c.failAll("tags", subject, err))
	}
	return func(yield func(Image, error) bool) {
		versions := func(ctx context.Context) iter.Seq2[Image, error] { return l.Versions(ctx, ref) }
		stream(ctx, c, &c.lists, versions, func(img Image, err error) bool {
			if err != nil {
				return yield(img, c.failAll("tags", subject, err))
			}
			if err := checkImage(img); err != nil {
				c.opts.Log.Debug("a tag was left out", "remote", c.name, "image", subject, "reason", err)
				return true
			}
			return yield(img, nil)
		})
	}
}
