// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// A Label is one label of one image.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	URI   string `json:"uri"` // of the image
}

// Labels yields the labels of images, in the order of Images: those that the
// registries' listings tell, and those within the images whose bytes are here.
// Nothing is downloaded. key and value, where not empty, are all of a label's,
// without regard to case; remote, where not empty, is the only one looked at.
//
// Errors: those of Images. An image that cannot be read has no labels.
func (c *Catalog) Labels(ctx context.Context, key, value, remote string) iter.Seq2[Label, error] {
	wanted := func(k, v string) bool {
		return (key == "" || strings.EqualFold(k, key)) && (value == "" || strings.EqualFold(v, value))
	}
	return func(yield func(Label, error) bool) {
		for rec, err := range c.Images(ctx, "", remote, false) {
			if err != nil {
				yield(Label{}, err)
				return
			}
			labels := c.labelsOf(ctx, rec)
			for _, k := range slices.Sorted(maps.Keys(labels)) {
				if wanted(k, labels[k]) && !yield(Label{Key: k, Value: labels[k], URI: rec.URI}, nil) {
					return
				}
			}
			if ctx.Err() != nil {
				yield(Label{}, ctx.Err())
				return
			}
		}
	}
}

// labelsOf returns what the listing tells and, over it, what the image itself
// says if its bytes are here.
func (c *Catalog) labelsOf(ctx context.Context, rec Record) map[string]string {
	all := maps.Clone(rec.Labels)
	facts, err := c.factsHere(ctx, rec)
	if err != nil {
		c.opts.Log.Debug("labels cannot be read", "image", rec.URI, "err", err)
	}
	if facts == nil || len(facts.Labels) == 0 {
		return all
	}
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, facts.Labels)
	return all
}

// factsHere inspects an image's file; nil if there is none on this machine.
func (c *Catalog) factsHere(ctx context.Context, rec Record) (*inspect.Facts, error) {
	r, err := c.Remote(rec.Remote)
	if err != nil || !r.atHand() && rec.State != cache.Cached {
		return nil, err
	}
	img := backends.Image{Ref: rec.Ref, Size: rec.Size, Digest: rec.Digest, Version: rec.Version, Modified: rec.Modified}
	f, err := c.openHere(ctx, r, img)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return inspect.Read(ctx, f, info.Size())
}
