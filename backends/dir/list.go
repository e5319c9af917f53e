// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// List implements backends.Lister. Every entry has all facts.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		root, err := c.open()
		if errors.Is(err, fs.ErrNotExist) && collection == "" {
			return // nothing was stored yet
		}
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		defer root.Close()
		l := lister{tree: root, collection: collection}
		if err := l.scan(ctx); err != nil {
			yield(backends.Entry{}, err)
			return
		}
		for _, child := range l.children {
			if !yield(backends.Entry{Collection: child}, nil) {
				return
			}
		}
		l.images(yield)
	}
}

// A lister gathers one collection.
type lister struct {
	*tree
	collection string
	files      []file
	children   []string
	onlyTags   bool // there is a directory, but it is an image's and no collection
}

func (l *lister) scan(ctx context.Context) error {
	dirs := l.dirs(l.collection)
	if len(dirs) == 0 {
		return fmt.Errorf("%w: no such collection", fs.ErrNotExist)
	}
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, err := l.read(dir)
		if err != nil {
			return err
		}
		l.files = append(l.files, flat(l.collection, dir, entries)...)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				if err := l.child(dir, e.Name(), seen); err != nil {
					return err
				}
			} else if _, isImage := parse(e.Name()); isImage {
				l.onlyTags = true
			}
		}
	}
	if l.onlyTags && len(l.files) == 0 && len(l.children) == 0 {
		return fmt.Errorf("%w: that is an image, not a collection", fs.ErrNotExist)
	}
	return nil
}

// child looks at one directory in a collection: it may hold the tags of an
// image, be a collection, or both.
func (l *lister) child(parent, base string, seen map[string]bool) error {
	dir, below := path.Join(parent, base), decodeCollection(base)
	holds := true // right below the root it can only be a collection, also while it is empty
	if l.collection != "" {
		below = l.collection + "/" + below
		entries, err := l.read(dir)
		if err != nil {
			return err
		}
		l.files = append(l.files, tags(l.collection, decode(base), dir, entries)...)
		holds = l.holdsImages(dir, entries, 0)
	}
	if holds && !seen[below] {
		seen[below] = true
		l.children = append(l.children, below)
	}
	return nil
}

const maxDepth = 32 // of directories that are searched for an image

// holdsImages reports whether a directory, as a collection, has an image
// somewhere.
func (l *lister) holdsImages(dir string, entries []fs.DirEntry, depth int) bool {
	for _, e := range entries {
		// At depth 0 a file that only has a tag is one of the directory itself,
		// as an image.
		if p, ok := parse(e.Name()); ok && maybeFile(e) && (p.image != "" || depth > 0) {
			return true
		}
	}
	if depth == maxDepth {
		return false
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		below := path.Join(dir, e.Name())
		if inside, err := l.read(below); err == nil && l.holdsImages(below, inside, depth+1) {
			return true
		}
	}
	return false
}

// images yields what each tag means: its newest version.
func (l *lister) images(yield func(backends.Entry, error) bool) {
	newest := map[backends.Ref]file{}
	for _, f := range l.files {
		if !l.stat(&f) {
			continue
		}
		key := f.ref
		key.Version = ""
		if old, ok := newest[key]; !ok || newestFirst(f, old) < 0 {
			newest[key] = f
		}
	}
	known := map[string]facts{}
	for _, f := range newest {
		if known[f.dir] == nil {
			known[f.dir] = l.facts(f.dir)
		}
		if !yield(backends.Entry{Image: l.image(f, known[f.dir])}, nil) {
			return
		}
	}
}

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
