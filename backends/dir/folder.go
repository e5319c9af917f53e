// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A folder is what a directory held when it was read. It never changes: many
// may use it.
type folder struct {
	entries  []entry  // by image, then tag, then base
	dirs     []string // names, in order
	unpacked bool     // it is the root of a container: nothing in it is an image
}

// An entry is a name in a directory that may be an image file's: the result of parse,
// without the parts that only the chosen file needs.
type entry struct {
	image, tag string
	base       string
}

var nothing = new(folder)

// rootMark is the directory that Singularity puts into the root of each container.
const rootMark = ".singularity.d"

// add takes in some entries of the directory.
func (f *folder) add(entries []fs.DirEntry, also backends.Extensions) {
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			f.unpacked = f.unpacked || e.Name() == rootMark && e.IsDir()
			continue
		}
		if p, ok := parse(e.Name(), also); ok && maybeFile(e) {
			f.entries = append(f.entries, entry{p.image, p.tag, e.Name()})
		} else if e.IsDir() {
			f.dirs = append(f.dirs, e.Name())
		}
	}
}

// sort puts the entries in order once all are there.
func (f *folder) sort() {
	if f.unpacked {
		f.entries, f.dirs = nil, nil
	}
	f.entries, f.dirs = slices.Clip(f.entries), slices.Clip(f.dirs)
	slices.SortFunc(f.entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.image, b.image), strings.Compare(a.tag, b.tag), strings.Compare(a.base, b.base))
	})
	slices.Sort(f.dirs)
}

func maybeFile(e fs.DirEntry) bool {
	return e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0
}

// size is about how many bytes of memory f takes.
func (f *folder) size() int {
	n := 64
	for _, l := range f.entries {
		n += 3*16 + len(l.base)
	}
	for _, name := range f.dirs {
		n += 16 + len(name)
	}
	return n
}

// of returns the entries of an image; with "", those whose names do not tell the image.
func (f *folder) of(image string) []entry {
	from := sort.Search(len(f.entries), func(i int) bool { return f.entries[i].image >= image })
	n := sort.Search(len(f.entries)-from, func(i int) bool { return f.entries[from+i].image > image })
	return f.entries[from : from+n]
}

// tagged returns those of entries, all of one image, that have a tag.
func tagged(entries []entry, tag string) []entry {
	from := sort.Search(len(entries), func(i int) bool { return entries[i].tag >= tag })
	n := sort.Search(len(entries)-from, func(i int) bool { return entries[from+i].tag > tag })
	return entries[from : from+n]
}

// folder returns what dir holds now. A missing one, something else of that name
// and a symbolic link hold nothing.
func (v *view) folder(dir string) (*folder, error) {
	l := query{path: dir, began: time.Now(), exact: v.exact}
	info, err := v.lstat(dir)
	if err != nil || info == nil || !info.IsDir() {
		return nothing, err
	}
	l.now = fileStateOf(info)
	return v.folders.get(l, func() (cached[*folder], error) { return v.readFolder(dir) })
}

// lstat returns nil without an error for what is not there.
func (v *view) lstat(dir string) (fs.FileInfo, error) {
	look := os.Lstat
	if dir == "." {
		look = os.Stat // the store itself may be a link
	}
	info, err := look(v.abs(dir))
	switch {
	case err == nil && dir == "." && !info.IsDir():
		return nil, v.noStore()
	case err == nil:
		return info, nil
	case isMissing(err):
		return nil, nil
	}
	return nil, localError(err)
}

// isMissing reports whether an error says that there is no such file, and could
// be none.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.ELOOP)
}

func (v *view) readFolder(dir string) (r cached[*folder], err error) {
	for range 4 {
		var same bool
		if r, same, err = v.tryFolder(dir); same {
			return r, err
		}
	}
	return r, fmt.Errorf("%w: directory %s again and again", backends.ErrChanged, dir)
}

// tryFolder reads a directory; same is false if what was opened was not, or is
// no more, what stands under its name: a link may have come in its place.
func (v *view) tryFolder(dir string) (r cached[*folder], same bool, err error) {
	root, err := v.root()
	if err != nil {
		return r, true, err
	}
	r.began = time.Now()
	d, openErr := openDir(root, dir)
	info, err := v.lstat(dir)
	if err != nil || info == nil || !info.IsDir() {
		if openErr == nil {
			d.Close()
		}
		r.value = nothing
		return r, true, err
	}
	if openErr != nil {
		return r, !isMissing(openErr), localError(openErr)
	}
	defer d.Close()
	opened, err := d.Stat()
	if err != nil {
		return r, true, localError(err)
	}
	if !os.SameFile(info, opened) {
		return r, false, nil
	}
	r.of = fileStateOf(opened)
	r.lasts = lasting(d, r.of)
	r.value, err = v.readEntries(d)
	r.size = r.value.size()
	return r, true, localError(err)
}

// readEntries reads a directory a piece at a time: of a hundred thousand entries all at
// once would take more memory than what is kept of them.
func (v *view) readEntries(d *os.File) (*folder, error) {
	f := new(folder)
	defer f.sort()
	for {
		entries, err := d.ReadDir(1024)
		f.add(entries, v.also)
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}
