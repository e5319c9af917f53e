// SPDX-License-Identifier: Apache-2.0

package http

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// How much is read of an index. A folder of 120,000 names has a page of some 20 MB.
const (
	maxPage   = 64 << 20  // bytes
	maxNames  = 1_000_000 // in one folder, whatever they are of
	maxStrays = 1_000     // links that are told of one page
)

// An item is what lies directly in a folder.
type item struct {
	name     string
	folder   bool
	size     int64     // -1 where the index does not tell it to the byte
	modified time.Time // zero where the index does not tell it
}

// An index is what a folder holds. It is packed, since a folder can have a million
// files: most take their name and a dozen bytes.
type index struct {
	naming naming
	most   int // names that are taken

	text    []byte   // of the images: image NUL tag NUL file NUL size time; see packName
	images  []uint32 // where each begins in text
	folders []string
	formats map[string]int // how many images have each
	links   int            // that were read
	inside  int            // those of them that lead to what lies in the folder
	hasSums bool           // the list of digests is among them
	exact   bool           // sizes are told
	strays  []string       // what looks like an image and is not in the folder, or cannot be named
	whole   bool           // the page has an end
	untold  error          // why this is of a list of digests, not of an index
}

func newIndex(n naming) *index {
	return &index{naming: n, most: maxNames, formats: map[string]int{}}
}

// errLimit says that an index has more than is read of it.
var errLimit = fmt.Errorf("%w: an index that is too long", backends.ErrBadAnswer)

var errTooLong = fmt.Errorf("%w: more than %d MiB (several folders would do)", errLimit, maxPage>>20)

func tooMany(most int) error {
	return fmt.Errorf("%w: more than %d names (several folders would do)", errLimit, most)
}

// count counts a link.
// Errors: errLimit.
func (x *index) count() error {
	if x.links++; x.links > x.most {
		return tooMany(x.most)
	}
	return nil
}

// add takes in what lies in the folder. What is no image by its name is passed over.
func (x *index) add(it item) {
	x.inside++
	x.exact = x.exact || it.size >= 0
	if it.folder {
		if it.name[0] != '.' {
			x.folders = append(x.folders, it.name)
		}
		return
	}
	x.hasSums = x.hasSums || it.name == x.naming.sums
	name, tag, format, ok := x.naming.parse(it.name)
	if !ok {
		return
	}
	if strings.ContainsRune(name+tag, 0) { // "%00"
		x.stray(it.name)
		return
	}
	x.formats[format]++
	x.images = append(x.images, uint32(len(x.text)))
	for _, part := range []string{name, tag, packName(name, tag, it.name)} {
		x.text = append(append(x.text, part...), 0)
	}
	x.text = binary.AppendVarint(x.text, it.size)
	var modified int64
	if !it.modified.IsZero() {
		modified = it.modified.Unix()
	}
	x.text = binary.AppendVarint(x.text, modified)
}

// stray notes a link that is not followed, if it looks like one to an image.
func (x *index) stray(href string) {
	before, _, _ := strings.Cut(href, "#")
	before, _, _ = strings.Cut(before, "?")
	if _, format := backends.CutExt(before); format != "" && len(x.strays) < maxStrays {
		x.strays = append(x.strays, href)
	}
}

// usual returns the format that most images have.
func (x *index) usual() (format string) {
	most := 0
	for _, f := range order("") {
		if x.formats[f] > most {
			format, most = f, x.formats[f]
		}
	}
	return format
}

// An image is one name with the files that have it.
type image struct {
	name, tag string
	files     []item // each once
}

// all yields the images in the order in which the catalogue keeps them. The slice of
// files is valid until the next one.
func (x *index) all() iter.Seq[image] {
	slices.SortFunc(x.images, func(a, b uint32) int { return bytes.Compare(x.text[a:], x.text[b:]) })
	return func(yield func(image) bool) {
		var img image
		for i, at := range x.images {
			name, tag, it := x.unpack(at)
			if i > 0 && (name != img.name || tag != img.tag) {
				if !yield(img) {
					return
				}
				img.files = img.files[:0]
			}
			img.name, img.tag = name, tag
			if n := len(img.files); n == 0 || img.files[n-1].name != it.name {
				img.files = append(img.files, it)
			}
		}
		if len(img.files) > 0 {
			yield(img)
		}
	}
}

func (x *index) unpack(at uint32) (name, tag string, it item) {
	rest := x.text[at:]
	cut := func() string {
		part, after, _ := bytes.Cut(rest, []byte{0})
		rest = after
		return string(part)
	}
	name, tag = cut(), cut()
	it.name = unpackName(name, tag, cut())
	size, n := binary.Varint(rest)
	modified, _ := binary.Varint(rest[n:])
	if it.size = size; modified != 0 {
		it.modified = time.Unix(modified, 0).UTC()
	}
	return name, tag, it
}

// packName returns what has to be kept of a file's name besides the image's: mostly the
// extension, after a colon.
func packName(name, tag, base string) string {
	if rest, ok := strings.CutPrefix(base, name+":"+tag); ok {
		return ":" + rest
	}
	return "/" + base
}

// unpackName is the inverse of packName.
func unpackName(name, tag, packed string) string {
	if rest, ok := strings.CutPrefix(packed, ":"); ok {
		return name + ":" + tag + rest
	}
	return packed[1:]
}

// children returns the names of the folders, each once, in order.
func (x *index) children() []string {
	all := make([]string, len(x.folders))
	for i, name := range x.folders {
		all[i] = decodeFolder(name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
