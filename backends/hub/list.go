// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// maxFound is how many images a search yields.
const maxFound = 10_000

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

// Search yields the images whose names contain all words of the query, without
// regard to case. It asks nobody.
func (c *client) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	words := strings.Fields(strings.ToLower(query))
	if len(words) == 0 {
		return backends.Fail[backends.Image](fmt.Errorf("%w: nothing to search for", fs.ErrInvalid))
	}
	return func(yield func(backends.Image, error) bool) {
		ix, err := c.load(ctx)
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		found := 0
		for _, org := range ix.names {
			for _, r := range ix.orgs[org] {
				for b := range r.current {
					if !containsAll(strings.ToLower(r.org+"/"+r.name+":"+b.tag), words) {
						continue
					}
					if found++; found > maxFound || !yield(c.image(ix, r, b), nil) {
						return
					}
				}
			}
		}
	}
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
