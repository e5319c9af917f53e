// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"github.com/sregfs/sregfs/catalog/verbs"
)

type (
	tagsRequest struct {
		URI string `json:"uri"`
		verbs.TagsOptions
	}
	tagRequest struct {
		URI   string `json:"uri"`
		Tag   string `json:"tag"`
		Force bool   `json:"force,omitempty"`
	}
)

// versionVerbs are those about tags and versions.
func versionVerbs(v *verbs.Verbs, opts Options) map[string]verb {
	return map[string]verb{
		"tags": verbOf(func(ctx context.Context, r tagsRequest, out *frameWriter) error {
			return sendOne[verbs.Tags](out)(v.Tags(ctx, r.URI, r.TagsOptions))
		}),
		"tag": opts.changing(verbOf(func(ctx context.Context, r tagRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Tag(ctx, r.URI, r.Tag, r.Force))
		})),
		"untag": opts.changing(verbOf(func(ctx context.Context, r removeRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Untag(ctx, r.URI, r.Means))
		})),
	}
}

// Tags is verbs.Verbs.Tags.
func (c *Client) Tags(ctx context.Context, uri string, o verbs.TagsOptions) (verbs.Tags, error) {
	return one(call[verbs.Tags](ctx, c, "tags", tagsRequest{URI: uri, TagsOptions: o}, nil))
}

// Tag is verbs.Verbs.Tag.
func (c *Client) Tag(ctx context.Context, uri, tag string, force bool) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "tag", tagRequest{URI: uri, Tag: tag, Force: force}, nil))
}

// Untag is verbs.Verbs.Untag.
func (c *Client) Untag(ctx context.Context, uri, means string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "untag", removeRequest{URI: uri, Means: means}, nil))
}
