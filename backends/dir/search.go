// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// Search implements backends.Searcher: every word must occur in the name,
// whatever its case.
func (c *client) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	words := strings.Fields(strings.ToLower(query))
	return func(yield func(backends.Image, error) bool) {
		todo := []string{""}
		for len(todo) > 0 {
			collection := todo[0]
			todo = todo[1:]
			for e, err := range c.List(ctx, collection) {
				switch {
				case errors.Is(err, fs.ErrNotExist):
					// Removed since its parent was listed.
				case err != nil:
					yield(backends.Image{}, err)
					return
				case e.Untold != nil:
				case e.Collection != "":
					if strings.Count(e.Collection, "/") < maxDepth {
						todo = append(todo, e.Collection)
					}
				case matches(e.Image.Ref, words) && !yield(e.Image, nil):
					return
				}
			}
		}
	}
}

func matches(ref backends.Ref, words []string) bool {
	name := strings.ToLower(ref.Repository() + ":" + ref.Tag)
	for _, w := range words {
		if !strings.Contains(name, w) {
			return false
		}
	}
	return true
}
