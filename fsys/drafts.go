// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

// locate returns the location of a file of that name in d. All names of one image give
// the same location.
func (d *Dir) locate(name string) location {
	p := location{remote: d.remote, collection: d.collection, tool: d.tool, name: name}
	p.temporary = d.tool != "" || isTemporary(name)
	if ref, _, err := parseFile(name); err == nil && !p.temporary {
		p.name = ref.String()
	}
	return p
}

// staged is the target of a file whose name in d is temporary.
func (d *Dir) staged(name string) spool.Target {
	return spool.Target{Remote: d.remote, File: path.Join(backends.EscapePath(d.collection), d.tool, name)}
}

// stagedAt is the inverse of staged: a tool's directory begins with the first part
// that begins with a dot.
func (f *FS) stagedAt(target spool.Target) (d *Dir, name string, err error) {
	d = &Dir{fs: f, remote: target.Remote}
	parts := strings.Split(target.File, "/")
	last := len(parts) - 1
	for i, part := range parts[:last] {
		if strings.HasPrefix(part, ".") {
			d.tool = path.Join(parts[i:last]...)
			break
		}
		plain, err := backends.UnescapePart(part)
		if err != nil {
			return nil, "", err
		}
		d.collection = join(d.collection, plain)
	}
	return d, parts[last], nil
}

// draftsAt returns the drafts at a location, the newest first.
func (f *FS) draftsAt(p location) []*Draft {
	f.mu.Lock()
	all := slices.Clone(f.drafts[p])
	f.mu.Unlock()
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(d *Draft) bool {
		lapsed := d.expire()
		if lapsed {
			f.removeDraft(d)
			d.release()
		}
		return lapsed
	})
}

// draftAt returns the draft that processes other than its writers find at a location:
// one that shadows the image, else the newest one; nil if there is none.
func (f *FS) draftAt(p location) *Draft {
	all := f.draftsAt(p)
	for _, d := range all {
		if d.shadows() {
			return d
		}
	}
	for _, d := range all {
		if d.visible() {
			return d
		}
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

// draft returns the draft of that name in d, nil if there is none. Usually there are no
// drafts at all, and the name is not parsed.
func (d *Dir) draft(name string) *Draft {
	if d.fs.noDrafts() {
		return nil
	}
	return d.fs.draftAt(d.locate(name))
}

// draftOf returns the draft of that name which the caller writes, or which it is about
// to open after ErrRetry; nil if there is none.
func (d *Dir) draftOf(name string, who Caller) *Draft {
	if d.fs.noDrafts() {
		return nil
	}
	for _, draft := range d.fs.draftsAt(d.locate(name)) {
		if draft.writtenBy(who) {
			return draft
		}
	}
	return nil
}

// HasDrafts reports whether a file of that name is being written: what the name means
// depends on the caller then.
func (d *Dir) HasDrafts(name string) bool {
	return !d.fs.noDrafts() && len(d.fs.draftsAt(d.locate(name))) > 0
}

// noDrafts reports whether there are no drafts at all.
func (f *FS) noDrafts() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.drafts) == 0
}

// drafts returns what Lookup could find in d.
func (d *Dir) drafts() []*Draft {
	d.fs.mu.Lock()
	var here []location
	for p := range d.fs.drafts {
		if p.remote == d.remote && p.collection == d.collection && p.tool == d.tool {
			here = append(here, p)
		}
	}
	d.fs.mu.Unlock()
	var visible []*Draft
	for _, p := range here {
		if draft := d.fs.draftAt(p); draft != nil && draft.visible() {
			visible = append(visible, draft)
		}
	}
	return visible
}

// install puts a draft at its location, and drops those there that nobody has open.
func (f *FS) install(d *Draft) error {
	var err error
	for _, old := range f.insert(d) {
		err = errors.Join(err, old.drop())
	}
	return err
}

// insert puts a draft at its location, and returns those that it replaces and the caller
// drops. A busy one stays beside it, except under a temporary name, which has one file.
func (f *FS) insert(d *Draft) (old []*Draft) {
	d.mu.Lock()
	p := d.loc
	d.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	var stay []*Draft
	for _, other := range f.drafts[p] {
		switch {
		case other == d:
		case !p.temporary && other.busy():
			stay = append(stay, other)
		default:
			old = append(old, other)
		}
	}
	f.drafts[p] = append(stay, d)
	return old
}

// detach removes a draft from a location, if it is there.
func (f *FS) detach(d *Draft, p location) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := slices.DeleteFunc(f.drafts[p], func(other *Draft) bool { return other == d })
	if len(left) == 0 {
		delete(f.drafts, p)
		return
	}
	f.drafts[p] = left
}

// remove drops the draft with its data; open handles keep it until they close.
func (d *Draft) remove() error {
	d.fs.removeDraft(d)
	return d.drop()
}

// drop is remove for a draft that is at no location any more.
func (d *Draft) drop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed || d.data == nil {
		return nil
	}
	d.removed = true
	err := d.data.Remove()
	if d.handles == 0 {
		err = errors.Join(err, d.data.Close())
		d.attr.Size, d.data = d.data.Size(), nil
	}
	return err
}

// removeDraft takes a draft out of the tree, and notifies the watchers.
func (f *FS) removeDraft(d *Draft) {
	d.mu.Lock()
	p := d.loc
	d.mu.Unlock()
	f.detach(d, p)
	d.changed()
}
