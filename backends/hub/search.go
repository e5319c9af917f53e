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
