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

// List implements backends.Lister. Every entry has all facts. Entries are yielded while
// the directories are read, so a caller that only needs the first one may stop.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		v := c.view()
		defer v.Close()
		l := lister{view: v, collection: collection, yield: yield, seen: map[string]bool{}}
		l.known = v.records.collection(ctx, collection)
		err := l.list(ctx)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			if l.recorded(ctx); l.any {
				err = nil
			}
			if lost := v.records.lost.Load(); lost != nil && !l.ended && err == nil {
				l.ended = !yield(backends.Entry{Untold: *lost}, nil)
			}
		}
		if err != nil && !l.ended {
			yield(backends.Entry{}, err)
		}
	}
}

// A lister yields one collection.
type lister struct {
	*view
	collection string
	subfolders []subfolder
	yield      func(backends.Entry, error) bool
	seen       map[string]bool // names of collections, with a slash, and of images
	any, ended bool            // something was yielded; the caller wants no more
	in         string          // the directory that facts are of
	facts      facts
	known      map[string][]record // by the names of images
	hidden     map[string]bool     // files at the root whose collection a record tells
}

func (l *lister) list(ctx context.Context) error {
	dirs, err := l.dirs(l.collection)
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return backends.NotFound("no such collection")
	}
	if l.subfolders, err = l.held(dirs); err != nil {
		return err
	}
	for _, p := range l.subfolders {
		if p.unpacked {
			return backends.NotFound("that is a container, unpacked, and no collection")
		}
		for _, base := range p.dirs {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.child(p.dir, base); err != nil || l.ended {
				return err
			}
		}
	}
	if l.flat(ctx); !l.any && l.onlyTags() {
		return backends.NotFound("that is an image, not a collection")
	}
	return nil
}

// onlyTags reports whether there is a directory, but an image's and no
// collection.
func (l *lister) onlyTags() bool {
	tags := false
	for _, p := range l.subfolders {
		if !strings.Contains(l.collection, "/") || len(p.of("")) < len(p.entries) {
			return false
		}
		tags = tags || len(p.entries) > 0
	}
	return tags
}

func (l *lister) add(e backends.Entry) {
	l.any = true
	l.ended = !l.yield(e, nil)
}

// digestOf is view.digest with one look at the facts of a directory.
func (l *lister) digestOf(f file) string {
	if f.dir != l.in {
		l.in, l.facts = f.dir, l.view.facts(f.dir)
	}
	if fact, ok := l.facts.of(f.base); ok && fact.matches(f.info) {
		return fact.digest
	}
	return l.digests.of(fileStateOf(f.info))
}

// once reports whether name comes for the first time.
func (l *lister) once(name string) bool {
	first := !l.seen[name]
	l.seen[name] = true
	return first
}

// child looks at one directory in a collection: it may hold the tags of an
// image, be a collection, or both.
func (l *lister) child(parent, base string) error {
	below := decodeCollection(base)
	if l.collection == "" {
		// Right below the root it can only be a collection, also while it is empty.
		if l.isUnpacked(base) {
			return nil
		}
		if l.once(below + "/") {
			l.add(backends.Entry{Collection: below})
		}
		return nil
	}
	below = l.collection + "/" + below
	p := subfolder{dir: join(parent, base)}
	var err error
	if p.folder, err = l.folder(p.dir); err != nil {
		return err
	}
	if l.holdsImages(p.dir, p.folder, 0) && l.once(below+"/") {
		if l.add(backends.Entry{Collection: below}); l.ended {
			return nil
		}
	}
	name := decode(base)
	if !l.once(name) {
		return nil
	}
	a := imageFiles{collection: l.collection, name: name, parts: []part{{dir: p.dir, entries: p.of("")}}}
	if len(l.subfolders) > 1 || len(spellings(name, decode)) > 1 {
		// Other directories may have more of it.
		var dirs []string
		for _, p := range l.subfolders {
			dirs = append(dirs, p.dir)
		}
		if a, err = l.own(imageFiles{collection: l.collection, name: name}, dirs); err != nil {
			return err
		}
	}
	l.image(a.flat(l.subfolders))
	return nil
}

// isUnpacked reports whether a directory of the root is a container that somebody
// unpacked: it would be named as an image is.
func (l *lister) isUnpacked(base string) bool {
	if !strings.Contains(base, ":") {
		return false
	}
	f, err := l.folder(base)
	return err == nil && f.unpacked
}

const maxDepth = 32 // of directories that are searched for an image

// holdsImages reports whether a directory, as a collection, has an image
// somewhere. One that cannot be read may have: listing it tells the error.
func (l *lister) holdsImages(dir string, f *folder, depth int) bool {
	// At depth 0 a file that only has a tag is one of the directory itself, as an
	// image.
	if len(f.entries) > 0 && (depth > 0 || len(f.entries) > len(f.of(""))) {
		return true
	}
	if depth == maxDepth {
		return false
	}
	for _, base := range f.dirs {
		below := join(dir, base)
		if inside, err := l.folder(below); err != nil || l.holdsImages(below, inside, depth+1) {
			return true
		}
	}
	return false
}

// flat yields the images that have no directory of their own.
func (l *lister) flat(ctx context.Context) {
	for _, p := range l.subfolders {
		if p.dir == "." && len(p.entries) > 0 {
			l.hidden = l.claimed(ctx)
		}
		for _, leaf := range p.entries {
			name := leaf.image
			if name == "" {
				name = leaf.tag
				if strings.Contains(l.collection, "/") {
					continue // a tag of the directory as an image
				}
			}
			if !l.ended && l.once(name) {
				l.image(imageFiles{collection: l.collection, name: name}.flat(l.subfolders))
			}
		}
	}
}

// image yields what each tag means.
func (l *lister) image(a imageFiles) {
	for tag := range a.tags() {
		versions := l.current(a.tag(tag))
		if len(versions) == 0 {
			continue
		}
		f := versions[0]
		if backends.IsPlain(f.format) && l.digests.isNoImage(fileStateOf(f.info)) {
			continue
		}
		if l.hidden[f.base] {
			continue
		}
		img := l.describe(f, l.digestOf(f))
		if known := l.known[a.name]; known != nil {
			l.seen[a.name+":"+tag] = true
			img = labelled(img, l.abs(f.dir, f.base), known)
		}
		if l.add(backends.Entry{Image: img}); l.ended {
			return
		}
	}
}
