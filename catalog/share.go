// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
)

// Shared is an image that others can get at now.
type Shared struct {
	Record Record `json:"image"`
	Link   string `json:"link"`           // where they find it
	With   string `json:"with,omitempty"` // the e-mail address of who was given access; "" if the link is enough
}

// Share lets others get at the image that uri names now: whoever has the link,
// or the person with that e-mail address. A uri without a remote means the default
// one and no other.
//
// Errors: those of Resolve and of backends.Sharer; errors.ErrUnsupported where
// the service has no such thing.
func (c *Catalog) Share(ctx context.Context, uri, with string) (Shared, error) {
	// Whoever opens the link gets what is there, not what was there a minute ago.
	r, img, err := c.named(ctx, uri, c.opts.Default)
	if err != nil {
		return Shared{}, err
	}
	link, err := r.Client.Share(ctx, img, with)
	c.health.note(r.Name, err, c.now())
	return Shared{Record: c.record(r.Name, img), Link: link, With: with}, err
}
