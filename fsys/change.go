// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// Watch calls fn for each change until stop is called. fn must not block nor
// call the tree.
func (f *FS) Watch(fn func(Change)) (stop func()) {
	f.mu.Lock()
	id := f.watched
	f.watched++
	f.watchers[id] = fn
	f.mu.Unlock()
	stopEvents := f.cat.Watch(func(e catalog.Event) {
		if c, ok := changeOf(e); ok {
			fn(c)
		}
	})
	return func() {
		stopEvents()
		f.mu.Lock()
		delete(f.watchers, id)
		f.mu.Unlock()
	}
}

// notify passes on a change that the catalogue does not know of. A draft that comes or
// goes changes the listing too.
func (f *FS) notify(c Change) {
	c.Listing = true
	f.mu.Lock()
	fns := make([]func(Change), 0, len(f.watchers))
	for _, fn := range f.watchers {
		fns = append(fns, fn)
	}
	f.mu.Unlock()
	for _, fn := range fns {
		fn(c)
	}
}

func changeOf(e catalog.Event) (Change, bool) {
	c := Change{Remote: e.Remote, Collection: e.Collection}
	switch e.Kind {
	case catalog.ListingChanged:
		c.Listing = true
	case catalog.ImageChanged:
		c.Collection, c.Names = e.Ref.Collection, namesOf(e.Ref)
	case catalog.ImageGone:
		c.Collection, c.Names, c.Listing = e.Ref.Collection, namesOf(e.Ref), true
	case catalog.RemoteGone: // a name in the root
		return Change{Names: []string{e.Remote}, Listing: true}, true
	case catalog.BlobChanged:
		return Change{Key: e.Key}, e.Key != ""
	default:
		return c, false
	}
	return c, true
}

// namesOf returns all names under which an image can have been looked up, except those
// with a version, whose meaning does not change.
func namesOf(ref backends.Ref) []string {
	ref.Version = ""
	tagged := backends.EscapePart(ref.Name) + ":" + backends.EscapePart(ref.Tag)
	names := []string{tagged, tagged + backends.Ext(backends.FormatArchive)}
	for _, format := range backends.Formats() {
		names = append(names, NamesPlus.fileName(ref, format))
		if format != backends.FormatArchive {
			names = append(names, NamesColon.fileName(ref, format))
		}
	}
	if ref.Tag != backends.DefaultTag {
		return names
	}
	names = append(names, backends.EscapePart(ref.Name))
	for _, format := range backends.Formats() {
		names = append(names, escapePlus(ref.Name)+backends.Ext(format))
	}
	return names
}
