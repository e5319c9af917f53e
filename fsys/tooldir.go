// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// A tool's directory has a name that begins with a dot, as no collection's does, and
// exists only here: rsync makes .~tmp~ and .rsync-partial beside its target, and other
// tools have an option for one. A file in it is temporary, whatever its name; a rename out
// of it publishes. An empty one is lost when the program ends; one with files is restored
// with them.

// toolDir returns the tool's directory of that name in d, whether it exists or not; nil
// if the name is a collection's.
func (d *Dir) toolDir(name string) *Dir {
	if d.remote == "" || d.tool == "" && !strings.HasPrefix(name, ".") {
		return nil
	}
	return &Dir{fs: d.fs, remote: d.remote, collection: d.collection, tool: path.Join(d.tool, name)}
}

// contains reports whether p is in d, or below it.
func (d *Dir) contains(p location) bool {
	in := p.remote == d.remote && p.collection == d.collection
	return in && (d.tool == "" || p.tool == d.tool || strings.HasPrefix(p.tool, d.tool+"/"))
}

// location is that of a tool's directory.
func (d *Dir) location() location {
	return location{remote: d.remote, collection: d.collection, tool: d.tool, temporary: true}
}

func (f *FS) makeToolDir(d *Dir) error {
	if f.hasToolDir(d) {
		return fmt.Errorf("%s: %w", d.tool, fs.ErrExist)
	}
	f.mu.Lock()
	f.toolDirs[d.location()] = struct{}{}
	f.mu.Unlock()
	f.notify(Change{Remote: d.remote, Collection: d.collection})
	return nil
}

func (f *FS) removeToolDir(d *Dir) {
	f.mu.Lock()
	delete(f.toolDirs, d.location())
	f.mu.Unlock()
	f.notify(Change{Remote: d.remote, Collection: d.collection})
}

func (f *FS) hasToolDir(d *Dir) bool {
	f.mu.Lock()
	_, made := f.toolDirs[d.location()]
	f.mu.Unlock()
	return made || f.holdsFiles(d)
}

// holdsFiles reports whether a draft or a tool's directory is in d, or below it. Images
// do not count.
func (f *FS) holdsFiles(d *Dir) bool {
	var in []location
	f.mu.Lock()
	for at := range f.toolDirs {
		if at != d.location() && d.contains(at) {
			f.mu.Unlock()
			return true
		}
	}
	for p := range f.drafts {
		if d.contains(p) {
			in = append(in, p)
		}
	}
	f.mu.Unlock()
	return slices.ContainsFunc(in, func(p location) bool {
		draft := f.draftAt(p)
		return draft != nil && draft.visible()
	})
}

// toolDirs returns the names of the tool's directories in d, sorted.
func (d *Dir) toolDirs() []string {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	names := map[string]struct{}{}
	add := func(at location) {
		if at.tool == d.tool || !d.contains(at) {
			return
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(at.tool, d.tool), "/"), "/")
		names[name] = struct{}{}
	}
	for at := range d.fs.toolDirs {
		add(at)
	}
	for p, drafts := range d.fs.drafts {
		if slices.ContainsFunc(drafts, (*Draft).visible) {
			add(p)
		}
	}
	return slices.Sorted(maps.Keys(names))
}
