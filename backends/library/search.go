// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

const (
	searchPath = "/v1/search"
	minSearch  = 3 // characters, minLength of openapi.yml
	maxFound   = 10_000
	// maxAsked is how many containers of a search are asked for their tags.
	maxAsked = 50
)

// A query is what is asked for.
type query struct{ value, arch, signed string }

// parseQuery reads words to look for; "arch=arm64" and "signed=true" among them
// narrow the search.
func (c *client) parseQuery(text string) (query, error) {
	q := query{arch: c.arch}
	var words []string
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "arch" && value != "":
			q.arch = value
		case key == "signed" && value != "":
			q.signed = value
		default:
			words = append(words, word)
		}
	}
	q.value = strings.Join(words, " ")
	if len([]rune(q.value)) < minSearch {
		return query{}, fmt.Errorf("%w: the library searches for at least %d characters", fs.ErrInvalid, minSearch)
	}
	return q, nil
}

// Search yields the images that the library finds, with all facts, and then the tags
// of the containers that it finds.
func (c *client) Search(ctx context.Context, text string) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		q, err := c.parseQuery(text)
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		values := url.Values{"value": {q.value}, "arch": {q.arch}}
		if q.signed != "" {
			values.Set("signed", q.signed)
		}
		var found struct {
			Images     []image     `json:"image"`
			Containers []container `json:"container"`
		}
		if err := c.get(ctx, searchPath+"?"+values.Encode(), &found); err != nil {
			yield(backends.Image{}, err)
			return
		}
		s := &search{c: c, seen: map[string]bool{}, yield: yield}
		if s.images(found.Images) && q.signed == "" {
			s.containers(ctx, found.Containers, q.arch)
		}
	}
}

// A search is one on its way.
type search struct {
	c     *client
	seen  map[string]bool
	yield func(backends.Image, error) bool
}

// one yields img, once. It returns false if that was the last.
func (s *search) one(img backends.Image) bool {
	key := img.Ref.String()
	if s.seen[key] || s.c.CheckName(img.Ref) != nil {
		return true
	}
	s.seen[key] = true
	return s.yield(img, nil) && len(s.seen) < maxFound
}

func (s *search) images(found []image) bool {
	for _, m := range found {
		if _, _, ok := versionOf(m.Hash); !ok || m.Size < 0 || !m.uploaded() || m.Deleted {
			continue
		}
		for _, tag := range m.Tags {
			n := m.name()
			n.tag = tag
			if !s.one(s.c.image(m, n.ref())) {
				return false
			}
		}
	}
	return true
}

// containers yields the tags of those found. A library that tells no tags with them
// is asked for some of them.
func (s *search) containers(ctx context.Context, found []container, arch string) {
	asked := 0
	for _, k := range found {
		n := name{entity: k.EntityName, collection: k.CollectionName, container: k.Name}
		if len(k.ImageTags)+len(k.ArchTags) == 0 {
			if asked++; asked > maxAsked {
				s.c.log.Debug("found containers are not asked for their tags", "more_than", maxAsked)
				return
			}
			if _, err := s.c.inner(ctx, containersPath, k.ID, &k); err != nil {
				s.yield(backends.Image{}, err)
				return
			}
		}
		for _, tag := range k.tags(arch) {
			n.tag = tag
			if !s.one(backends.Image{Ref: n.ref(), Size: -1, Format: backends.FormatSIF}) {
				return
			}
		}
	}
}
