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
// stays here: rsync makes .~tmp~ and .rsync-partial beside its target, others are
// told of one. What is in it has no image's name, whatever it is called; a rename
// out of it publishes. An empty one is forgotten when the program ends, one with
// files is found by them.

// toolDir returns the tool's directory of that name in d, whether it is there or
// not; nil if the name is that of a collection.
func (d *Dir) toolDir(name string) *Dir {
	if d.remote == "" || d.tool == "" && !strings.HasPrefix(name, ".") {
		return nil
	}
	return &Dir{fs: d.fs, remote: d.remote, collection: d.collection, tool: path.Join(d.tool, name)}
}

// holds reports whether what stands at p is in d, or below it.
func (d *Dir) contains(p location) bool {
	in := p.remote == d.remote && p.collection == d.collection
	return in && (d.tool == "" || p.tool == d.tool || strings.HasPrefix(p.tool, d.tool+"/"))
}

// at is where a tool's directory stands.
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

// holdsFiles reports whether a file or a tool's directory is in d, or below: not
// whether it holds images.
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
