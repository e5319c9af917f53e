// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A tree is the directory, opened. Paths are relative to it, with slashes.
// Through os.Root nothing is written, and no directory read, beyond a symbolic
// link that leads out.
type tree struct {
	*os.Root
}

// A file is one image file.
type file struct {
	dir, base string
	ref       backends.Ref // Version is the one that the name tells
	format    string
	flat      bool        // image and tag both in the file's name
	info      fs.FileInfo // of what a link leads to; set by stat
}

// open opens the directory; one that is not there yet is fs.ErrNotExist.
func (c *client) open() (*tree, error) {
	root, err := os.OpenRoot(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no directory %s yet", fs.ErrNotExist, c.path)
	}
	if err != nil {
		return nil, localError(err)
	}
	return &tree{root}, nil
}

// Close releases the tree.
func (t *tree) Close() { _ = t.Root.Close() }

func (t *tree) abs(elem ...string) string {
	return filepath.Join(append([]string{t.Name()}, elem...)...)
}

// read returns what dir holds. A missing one, or something else of that name,
// holds nothing.
func (t *tree) read(dir string) ([]fs.DirEntry, error) {
	d, err := t.Open(filepath.FromSlash(dir))
	if err != nil {
		if info, statErr := t.Lstat(filepath.FromSlash(dir)); statErr == nil && info.IsDir() {
			return nil, localError(err)
		}
		return nil, nil
	}
	defer d.Close()
	if info, err := d.Stat(); err != nil || !info.IsDir() {
		return nil, nil //nolint:nilerr // a file is not a directory of images
	}
	entries, err := d.ReadDir(-1)
	return entries, localError(err)
}

// dirs returns the directories that a collection is kept in: one, unless its
// name occurs escaped and not escaped.
func (t *tree) dirs(collection string) []string {
	found := []string{"."}
	if collection == "" {
		return found
	}
	for part := range strings.SplitSeq(collection, "/") {
		var next []string
		for _, parent := range found {
			for _, s := range spellings(part, decodeCollection) {
				dir := path.Join(parent, s)
				if info, err := t.Lstat(filepath.FromSlash(dir)); err == nil && info.IsDir() {
					next = append(next, dir)
				}
			}
		}
		found = next
	}
	return found
}

// tags returns the files in the directory of an image.
func tags(collection, name, dir string, entries []fs.DirEntry) []file {
	var files []file
	for _, e := range entries {
		p, ok := parse(e.Name())
		if !ok || p.image != "" || !maybeFile(e) {
			continue
		}
		files = append(files, newFile(dir, e.Name(), backends.Ref{Collection: collection, Name: name, Tag: p.tag, Version: p.version}, p.format))
	}
	return files
}

// flat returns the files in the directory of a collection that tell the image
// by their own name; depth is the collection's count of parts.
func flat(collection, dir string, entries []fs.DirEntry) []file {
	byHand := strings.Count(collection, "/") == 0
	var files []file
	for _, e := range entries {
		p, ok := parse(e.Name())
		if !ok || p.image == "" && !byHand || !maybeFile(e) {
			continue
		}
		if p.image == "" {
			p.image, p.tag = p.tag, backends.DefaultTag
		}
		f := newFile(dir, e.Name(), backends.Ref{Collection: collection, Name: p.image, Tag: p.tag, Version: p.version}, p.format)
		f.flat = true
		files = append(files, f)
	}
	return files
}

func newFile(dir, base string, ref backends.Ref, format string) file {
	return file{dir: dir, base: base, ref: ref, format: format}
}

func maybeFile(e fs.DirEntry) bool {
	return e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0
}

// files returns every file of one image, all tags and versions.
func (t *tree) files(collection, name string) ([]file, error) {
	if collection == "" {
		return nil, nil // at the root the file's own name tells all
	}
	var all []file
	for _, dir := range t.dirs(collection) {
		for _, s := range spellings(name, decode) {
			at := path.Join(dir, s)
			entries, err := t.read(at)
			if err != nil {
				return nil, err
			}
			all = append(all, tags(collection, name, at, entries)...)
		}
	}
	return all, nil
}

// flatFiles is files for the layouts that have no directory for each image.
func (t *tree) flatFiles(collection, name string) ([]file, error) {
	var all []file
	for _, dir := range t.dirs(collection) {
		entries, err := t.read(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range flat(collection, dir, entries) {
			if f.ref.Name == name {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// find returns the file that ref names now.
// Errors: fs.ErrNotExist.
func (t *tree) find(ref backends.Ref) (file, error) {
	// The directory of a collection can be large and rarely has files in it: it
	// is read only if the directory of the image has no answer.
	for _, list := range []func(string, string) ([]file, error){t.files, t.flatFiles} {
		files, err := list(ref.Collection, ref.Name)
		if err != nil {
			return file{}, err
		}
		if f, ok := t.choose(files, ref); ok {
			return f, nil
		}
	}
	return file{}, fmt.Errorf("%w: no such image", fs.ErrNotExist)
}

// choose returns the file of ref's tag, or of its version under any tag.
func (t *tree) choose(files []file, ref backends.Ref) (file, bool) {
	if ref.Version == "" {
		current := t.current(slices.DeleteFunc(files, func(f file) bool { return f.ref.Tag != ref.Tag }))
		if len(current) == 0 {
			return file{}, false
		}
		return current[0], true
	}
	// Its own tag first: the same bytes may stand under others too.
	slices.SortStableFunc(files, func(a, b file) int { return boolCompare(b.ref.Tag == ref.Tag, a.ref.Tag == ref.Tag) })
	known := map[string]facts{}
	for _, f := range files {
		if !t.stat(&f) {
			continue
		}
		if known[f.dir] == nil {
			known[f.dir] = t.facts(f.dir)
		}
		if f.hasVersion(ref.Version, known[f.dir]) {
			return f, true
		}
	}
	return file{}, false
}

// current sorts the versions of one tag: what the tag means comes first. That
// is the newest, in the present layout before the older ones.
func (t *tree) current(versions []file) []file {
	var there []file
	for _, f := range versions {
		if t.stat(&f) {
			there = append(there, f)
		}
	}
	slices.SortFunc(there, newestFirst)
	return there
}

func newestFirst(a, b file) int {
	if c := boolCompare(a.flat, b.flat); c != 0 {
		return c
	}
	if c := b.info.ModTime().Compare(a.info.ModTime()); c != 0 {
		return c
	}
	return strings.Compare(b.base, a.base)
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// stat fills in f.info, through a symbolic link; false if there is no regular
// file.
func (t *tree) stat(f *file) bool {
	if f.info != nil {
		return true
	}
	info, err := os.Stat(t.abs(f.dir, f.base))
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f.info = info
	return true
}

// hasVersion reports whether version, in any of its spellings, means f.
func (f *file) hasVersion(version string, known facts) bool {
	if version == versionOf(f.info) {
		return true
	}
	hex := strings.TrimPrefix(version, "sha256:")
	if fact, ok := known[f.base]; ok {
		// With the facts at hand the name counts only if the file is still the
		// one that was stored under it.
		return fact.matches(f.info) && hex == strings.TrimPrefix(fact.digest, "sha256:")
	}
	return f.ref.Version != "" && (version == f.ref.Version || hex == f.ref.Version)
}

// image describes f.
func (t *tree) image(f file, known facts) backends.Image {
	ref := f.ref
	ref.Version = ""
	img := backends.Image{
		Ref: ref, Size: f.info.Size(), Version: versionOf(f.info), Modified: f.info.ModTime(), Format: f.format,
		URL: (&url.URL{Scheme: "file", Path: filepath.ToSlash(t.abs(f.dir, f.base))}).String(),
	}
	if fact, ok := known[f.base]; ok && fact.matches(f.info) {
		img.Digest = fact.digest
	}
	return img
}
