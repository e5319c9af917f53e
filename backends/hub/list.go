// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// List yields what the index has: of each tag the newest build.
//
// Errors: errors.ErrUnsupported where there is no index. One that cannot be
// had just now is backends.ErrUnavailable: names that were seen before stay.
func (c *client) List(ctx context.Context, at string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		ix, err := c.load(ctx)
		if err == nil && at != "" && ix.orgs[at] == nil {
			err = backends.NotFound("no such organisation in the archive")
		}
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		if at == "" {
			for _, org := range ix.names {
				if !yield(backends.Entry{Collection: org}, nil) {
					return
				}
			}
			return
		}
		for _, r := range ix.orgs[at] {
			for b := range r.current {
				if !yield(backends.Entry{Image: c.image(ix, r, b)}, nil) {
					return
				}
			}
		}
	}
}
