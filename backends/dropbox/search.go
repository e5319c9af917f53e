// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
)

// maxMatches is how many results Dropbox gives for one search in all.
const maxMatches = 10_000

// Search implements backends.Searcher by Dropbox's own search for file names,
// which finds a new file after some seconds only. Every word must occur in the
// name, whatever its case.
func (c *client) Search(ctx context.Context, query string) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		words := strings.Fields(strings.ToLower(query))
		if len(words) == 0 {
			return // Dropbox takes no empty query
		}
		options := files.NewSearchOptions()
		options.Path, options.MaxResults, options.FilenameOnly = c.root, 1000, true
		arg := files.NewSearchV2Arg(strings.Join(words, " "))
		arg.Options = options
		page, err := c.files.SearchV2Context(ctx, arg)
		seen := map[string]bool{}
		for matches := 0; err == nil && page != nil; {
			for _, match := range page.Matches {
				img, ok, imgErr := c.match(ctx, match, words)
				if imgErr != nil {
					yield(backends.Image{}, imgErr)
					return
				}
				if ok && !yield(img, nil) {
					return
				}
			}
			if !page.HasMore {
				return
			}
			if matches += len(page.Matches) + 1; seen[page.Cursor] || matches > 2*maxMatches {
				yield(backends.Image{}, fmt.Errorf("%w: a search without an end", backends.ErrBadAnswer))
				return
			}
			seen[page.Cursor] = true
			page, err = c.files.SearchContinueV2Context(ctx, files.NewSearchV2ContinueArg(page.Cursor))
		}
		if err == nil {
			err = fmt.Errorf("%w: a page that is none", backends.ErrBadAnswer)
		}
		yield(backends.Image{}, translate(ctx, err))
	}
}

// match returns what was found, if that is an image which has all words.
func (c *client) match(ctx context.Context, match *files.SearchMatchV2, words []string) (backends.Image, bool, error) {
	if match == nil || match.Metadata == nil {
		return backends.Image{}, false, nil
	}
	f, ok := match.Metadata.Metadata.(*files.FileMetadata)
	if !ok || !f.IsDownloadable {
		return backends.Image{}, false, nil
	}
	p, ok := names.Parse(f.Name)
	if !ok {
		return backends.Image{}, false, nil
	}
	if err := checkFile(f); err != nil {
		return backends.Image{}, false, err
	}
	collection, err := c.spell(ctx, parent(f.PathDisplay))
	if err != nil {
		return backends.Image{}, false, err
	}
	img := makeImage(collection, p, f)
	name := strings.ToLower(img.Ref.Repository() + ":" + img.Ref.Tag)
	for _, w := range words {
		ok = ok && strings.Contains(name, w)
	}
	return img, ok, nil
}
