// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"iter"

	"github.com/sregfs/sregfs/catalog/verbs"
)

type (
	diffRequest struct {
		From string `json:"from"`
		To   string `json:"to"`
		verbs.DiffOptions
	}
	runRequest struct {
		Run string `json:"run"`
		URI string `json:"uri,omitempty"`
	}
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
		"diff": verbOf(func(ctx context.Context, r diffRequest, out *frameWriter) error {
			return sendAll(out, v.Diff(ctx, r.From, r.To, r.DiffOptions))
		}),
		"pin-for": opts.changing(verbOf(func(ctx context.Context, r runRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.PinFor(ctx, r.Run, r.URI))
		})),
		"release": opts.changing(verbOf(func(ctx context.Context, r runRequest, out *frameWriter) error {
			return sendAll(out, v.Release(ctx, r.Run, r.URI))
		})),
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

// PinFor is verbs.Verbs.PinFor.
func (c *Client) PinFor(ctx context.Context, run, uri string) (verbs.Record, error) {
	return one(call[verbs.Record](ctx, c, "pin-for", runRequest{Run: run, URI: uri}, nil))
}

// Release is verbs.Verbs.Release.
func (c *Client) Release(ctx context.Context, run, uri string) iter.Seq2[verbs.Record, error] {
	return call[verbs.Record](ctx, c, "release", runRequest{Run: run, URI: uri}, nil)
}

// Diff is verbs.Verbs.Diff.
func (c *Client) Diff(ctx context.Context, from, to string, o verbs.DiffOptions) iter.Seq2[verbs.Change, error] {
	return call[verbs.Change](ctx, c, "diff", diffRequest{From: from, To: to, DiffOptions: o}, nil)
}
