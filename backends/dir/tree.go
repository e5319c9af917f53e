// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A view is the store for one operation that reads. Paths are relative to it,
// with slashes. What directories held is remembered by the client; the files
// themselves are looked at each time.
type view struct {
	*memories
	path   string
	exact  bool     // nothing remembered that could be out of date
	opened *os.Root // once root was called
}

// memories are what a client remembers of its store.
type memories struct {
	also    backends.Extensions // of files that count as images besides the usual ones
	folders readCache[*folder]
	known   readCache[facts]
	digests digests
	records records
	urls    urls
}

// A file is one image file.
type file struct {
	dir, base string
	ref       backends.Ref // Version is the one that the name tells
	format    string
	flat      bool        // image and tag both in the file's name
	info      fs.FileInfo // of what a link leads to; set by stat
}

func (c *client) view() *view { return &view{memories: &c.memories, path: c.path} }

// root opens the store: what is read through it is not beyond a symbolic link
// that leads out.
func (v *view) root() (*os.Root, error) {
	if v.opened != nil {
		return v.opened, nil
	}
	var root *os.Root
	info, err := os.Stat(v.path)
	if err == nil && !info.IsDir() {
		return nil, v.noStore()
	}
	if err == nil {
		root, err = os.OpenRoot(v.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backends.NotFound("no directory %s yet", v.path)
	}
	if err != nil {
		return nil, localError(err)
	}
	v.opened = root
	return root, nil
}

func (v *view) noStore() error {
	return backends.Saying(fs.ErrInvalid, "%s is not a directory", v.path)
}

// Close releases the view.
func (v *view) Close() {
	if v.opened != nil {
		_ = v.opened.Close()
	}
}

// A tree is the store for an operation that writes.
type tree struct {
	*os.Root
	view
}

// open opens the directory; one that is not there yet is fs.ErrNotExist.
func (c *client) open() (*tree, error) {
	v := view{memories: &c.memories, path: c.path, exact: true}
	root, err := v.root()
	if err != nil {
		return nil, err
	}
	return &tree{root, v}, nil
}

// Close releases the tree.
func (t *tree) Close() { t.view.Close() }

// changed makes everybody look at dir, and the directories above it, anew: after
// a change of ours nobody is to wait for the file system to show it.
func (t *tree) changed(dir string) {
	t.known.drop(dir)
	for ; ; dir = path.Dir(dir) {
		t.folders.drop(dir)
		if dir == "." {
			return
		}
	}
}

// fromSlash and abs are called for every file of a listing.

func fromSlash(path string) string {
	if filepath.Separator == '/' {
		return path
	}
	return filepath.FromSlash(path)
}

func (v *view) abs(elem ...string) string {
	var b strings.Builder
	b.WriteString(v.path)
	for _, e := range elem {
		if e != "." {
			b.WriteByte(filepath.Separator)
			b.WriteString(fromSlash(e))
		}
	}
	return b.String()
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// dirs returns the directories that a collection is kept in: one, unless its
// name occurs escaped and not escaped.
func (v *view) dirs(collection string) ([]string, error) {
	found := []string{"."}
	if collection == "" {
		return found, nil
	}
	for part := range strings.SplitSeq(collection, "/") {
		var next []string
		for _, parent := range found {
			for _, s := range spellings(part, decodeCollection) {
				dir := join(parent, s)
				info, err := v.lstat(dir)
				if err != nil {
					return nil, err
				}
				if info != nil && info.IsDir() {
					next = append(next, dir)
				}
			}
		}
		found = next
	}
	return found, nil
}

// imageFiles are the files of one image of a collection. They are collected for one query.
type imageFiles struct {
	collection, name string
	parts            []part
}

// A part is what one directory has of them.
type part struct {
	dir     string
	entries []entry
	flat    bool // image and tag both in the file's name
	byHand  bool // the name without extension is the image's
}

// own adds the files in the image's own directories.
func (v *view) own(a imageFiles, dirs []string) (imageFiles, error) {
	if a.collection == "" {
		return a, nil // at the root the file's own name tells all
	}
	for _, dir := range dirs {
		for _, s := range spellings(a.name, decode) {
			at := join(dir, s)
			f, err := v.folder(at)
			if err != nil {
				return a, err
			}
			a.parts = append(a.parts, part{dir: at, entries: f.of("")})
		}
	}
	return a, nil
}

// A subfolder is a directory of a collection.
type subfolder struct {
	dir string
	*folder
}

func (v *view) held(dirs []string) ([]subfolder, error) {
	var subfolders []subfolder
	for _, dir := range dirs {
		f, err := v.folder(dir)
		if err != nil {
			return nil, err
		}
		subfolders = append(subfolders, subfolder{dir, f})
	}
	return subfolders, nil
}

// flat adds the files in the directories of the collection itself.
func (a imageFiles) flat(in []subfolder) imageFiles {
	for _, p := range in {
		a.parts = append(a.parts, part{dir: p.dir, entries: p.of(a.name), flat: true})
		if !strings.Contains(a.collection, "/") {
			a.parts = append(a.parts, part{dir: p.dir, entries: tagged(p.of(""), a.name), flat: true, byHand: true})
		}
	}
	return a
}

// tag returns the files of one tag.
func (a imageFiles) tag(tag string) []file {
	var files []file
	for _, p := range a.parts {
		entries := p.entries
		switch {
		case !p.byHand:
			entries = tagged(entries, tag)
		case tag != backends.DefaultTag:
			entries = nil
		}
		for _, l := range entries {
			files = append(files, a.file(p, l))
		}
	}
	return files
}

// others returns the files of all other tags.
func (a imageFiles) others(tag string) []file {
	var files []file
	for _, p := range a.parts {
		for _, l := range p.entries {
			if f := a.file(p, l); f.ref.Tag != tag {
				files = append(files, f)
			}
		}
	}
	return files
}

// tags yields each tag once.
func (a imageFiles) tags() iter.Seq[string] {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		for i, p := range a.parts {
			last := ""
			for _, l := range p.entries {
				tag := l.tag
				if p.byHand {
					tag = backends.DefaultTag
				}
				if tag == last || seen[tag] {
					continue
				}
				if last = tag; i < len(a.parts)-1 {
					seen[tag] = true
				}
				if !yield(tag) {
					return
				}
			}
		}
	}
}

func (a imageFiles) file(p part, l entry) file {
	told := split(l.base)
	tag := l.tag
	if p.byHand {
		tag = backends.DefaultTag
		if told.format == backends.FormatPlain {
			told.format = backends.FormatBare
		}
	}
	return file{
		dir: p.dir, base: l.base, format: told.format, flat: p.flat,
		ref: backends.Ref{Collection: a.collection, Name: a.name, Tag: tag, Version: told.version},
	}
}

// find returns the file that ref names now.
// Errors: fs.ErrNotExist.
func (v *view) find(ctx context.Context, ref backends.Ref) (file, error) {
	dirs, err := v.dirs(ref.Collection)
	if err != nil {
		return file{}, err
	}
	wanted := imageFiles{collection: ref.Collection, name: ref.Name}
	own, err := v.own(wanted, dirs)
	if err != nil {
		return file{}, err
	}
	if f, ok, err := v.choose(ctx, own, ref); err != nil || ok {
		return f, err
	}
	// The directory of a collection can be large and rarely has files in it: it
	// is read only if the directory of the image has no answer.
	subfolders, err := v.held(dirs)
	if err != nil {
		return file{}, err
	}
	if f, ok, err := v.choose(ctx, wanted.flat(subfolders), ref); err != nil || ok {
		return f, err
	}
	return file{}, backends.NotFound("no such image")
}

// choose returns the file of ref's tag, or of its version under any tag.
func (v *view) choose(ctx context.Context, a imageFiles, ref backends.Ref) (file, bool, error) {
	if ref.Version == "" {
		current := v.current(a.tag(ref.Tag))
		if len(current) == 0 {
			return file{}, false, nil
		}
		return current[0], true, nil
	}
	// Its own tag first: the same bytes may stand under others too.
	if f, ok, err := v.withVersion(ctx, a.tag(ref.Tag), ref.Version); ok || err != nil {
		return f, ok, err
	}
	return v.withVersion(ctx, a.others(ref.Tag), ref.Version)
}

func (v *view) withVersion(ctx context.Context, files []file, version string) (file, bool, error) {
	for _, f := range files {
		if !v.stat(&f) {
			continue
		}
		if is, err := v.hasVersion(ctx, f, version); is || err != nil {
			return f, is, err
		}
	}
	return file{}, false, nil
}

// current sorts the versions of one tag: what the tag means comes first. That
// is the newest, in the present layout before the older ones.
func (v *view) current(versions []file) []file {
	var there []file
	for _, f := range versions {
		if v.stat(&f) {
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
// file in the store.
func (v *view) stat(f *file) bool {
	if f.info != nil {
		return true
	}
	info, err := os.Lstat(v.abs(f.dir, f.base))
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		_, info, err = v.target(join(f.dir, f.base))
	}
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f.info = info
	return true
}

// hasVersion reports whether version, in any of its spellings, means f. A digest
// means the bytes: what the store says of them, by the file's name or beside it,
// only tells which file is worth reading.
// Errors: those of hash.
func (v *view) hasVersion(ctx context.Context, f file, version string) (bool, error) {
	if version == versionOf(f.info) {
		return true, nil
	}
	digest, isDigest := isHash(version)
	if !isDigest {
		return f.ref.Version != "" && version == f.ref.Version, nil
	}
	if known := v.digest(f); known != "" && known != digest {
		return false, nil
	}
	if named, ok := isHash(f.ref.Version); ok && named != digest {
		return false, nil
	}
	got, err := v.hash(ctx, f)
	if errors.Is(err, backends.ErrChanged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return got == digest, localError(err)
}

// describe makes of f, with its digest, what others see.
func (v *view) describe(f file, digest string) backends.Image {
	ref := f.ref
	ref.Version = ""
	return backends.Image{
		Ref: ref, Size: f.info.Size(), Version: versionOf(f.info), Modified: f.info.ModTime(), Format: f.format, Digest: digest,
		Mode: f.info.Mode().Perm(), GID: group(f.info),
		URL: (&url.URL{Scheme: "file", Path: filepath.ToSlash(v.abs(f.dir, f.base))}).String(),
	}
}
