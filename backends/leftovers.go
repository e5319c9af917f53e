// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"iter"
	"time"
)

// A Leftover is an upload that was begun and not ended, as a service keeps it: of a push that
// was broken off, or is under way, of this program or of another.
type Leftover struct {
	ID      string    `json:"id"`
	Path    string    `json:"path"` // where it was to go, as the service names that
	Started time.Time `json:"started,omitzero"`
}

// A LeftoverLister can tell what uploads have left at its service, which may cost money there.
type LeftoverLister interface {
	// Leftovers yields them, in any order.
	//
	// Errors: those of Lister.
	Leftovers(ctx context.Context) iter.Seq2[Leftover, error]

	// Abandon removes one. That it is gone is success.
	//
	// Errors: those of Deleter.
	Abandon(ctx context.Context, l Leftover) error
}

// Leftovers is LeftoverLister's. It is not tried again.
func (c *Client) Leftovers(ctx context.Context) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		l, ok := c.backend.(LeftoverLister)
		if !ok {
			yield(Leftover{}, c.failAll("uploads", "", c.unsupported("tell what uploads have left there")))
			return
		}
		for left, err := range l.Leftovers(ctx) {
			if !yield(left, c.failAll("uploads", "", err)) || err != nil {
				return
			}
		}
	}
}

// Abandon is LeftoverLister's. Errors: those of it; ErrReadOnly.
func (c *Client) Abandon(ctx context.Context, left Leftover) error {
	l, ok := c.backend.(LeftoverLister)
	switch {
	case !ok:
		return c.failAll("abandon", left.Path, c.unsupported("tell what uploads have left there"))
	case c.opts.ReadOnly:
		return c.failAll("abandon", left.Path, ErrReadOnly)
	}
	return c.failAll("abandon", left.Path, l.Abandon(ctx, left))
}
