// SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// How a path tells a name. Folders are the collection; the last part is a stem, perhaps
// "@VERSION", and the extension of a format.
//
//	path              collection  image  tag
//	c/i:t.sif         c           i      t       sregistry since 0.2.23, and what a push writes
//	c/i:t@v.sif       c           i      t       the same, with a version
//	a/b/i:t.sif       a/b         i      t
//	i:t.sif           (root)      i      t
//	c/i-t.simg        c           i-t    latest  sregistry 0.0.99 to 0.2.22
//	c/i.sif           c           i      latest  put there by hand
//	c/i+t.oci.tar     c           i      t       as the mount shows container images
//
// The form with a dash does not tell where the tag begins ("a-b-c" may be a:b-c or a-b:c), so
// it is not guessed in a listing. A caller that asks for i:t knows it: Stat finds it under the
// old name too.
//
// Parts are escaped as everywhere (backends.EscapePart). A part that is no such escape, "100%"
// for one, stands for itself. What begins with a dot is hidden.

// Hidden begins the names of files that are no images yet, or no more: uploads under way.
const Hidden = ".sregfs-"

// A Parsed name is what the last part of a path tells.
type Parsed struct {
	Name, Tag string
	Version   string // as written; "" if there is none
	Format    string
	Flat      bool // there was no colon: the tag is only assumed
}

// Parse reads a file's name; ok is false if it is not an image's.
func (l Layout) Parse(base string) (p Parsed, ok bool) {
	stem, format := backends.CutExt(base)
	if format == "" || stem == "" || stem[0] == '.' {
		return p, false
	}
	stem, version, _ := strings.Cut(stem, "@")
	p.Version, p.Format = l.decode(version, backends.EscapeVersion), format
	name, tag, tagged := strings.Cut(stem, ":")
	if !tagged && format == backends.FormatArchive {
		name, tag, tagged = strings.Cut(stem, "+")
	}
	if !tagged || name == "" || tag == "" {
		p.Name, p.Tag, p.Flat = l.decode(stem, l.escape), backends.DefaultTag, true
		return p, stem != ""
	}
	p.Name, p.Tag = l.decode(name, l.escape), l.decode(tag, l.escape)
	return p, true
}

// IsOld reports whether p is what sregistry once wrote for ref.
func (p Parsed) IsOld(ref backends.Ref) bool { return p.Flat && p.Name == ref.Name+"-"+ref.Tag }

// Is reports whether p, in ref's collection, is ref.
func (p Parsed) Is(ref backends.Ref) bool { return p.Name == ref.Name && p.Tag == ref.Tag }

func (l Layout) escape(part string) string {
	s := backends.EscapePart(part)
	if l.Escape != nil {
		s = l.Escape(s)
	}
	return s
}

// decode is the inverse of escape; what that would not have written stands for itself.
func (l Layout) decode(part string, escape func(string) string) string {
	plain, err := backends.UnescapePart(part)
	if err != nil || escape(plain) != part {
		return part
	}
	return plain
}

// Folder decodes a part of a collection, in which an escaped slash would make two
// parts of one.
func (l Layout) Folder(part string) string {
	if plain := l.decode(part, l.escape); !strings.Contains(plain, "/") {
		return plain
	}
	return part
}

// Collection returns the collection that a folder is.
func (l Layout) Collection(folder string) string {
	if folder == "" {
		return ""
	}
	parts := strings.Split(folder, "/")
	for i, part := range parts {
		parts[i] = l.Folder(part)
	}
	return strings.Join(parts, "/")
}

const maxSpellings = 8 // of one collection, that are looked for

// Folders returns the folders that a collection can be, the one that a push writes to first.
func (l Layout) Folders(collection string) []string {
	all := []string{""}
	if collection == "" {
		return all
	}
	for part := range strings.SplitSeq(collection, "/") {
		spelled := []string{l.escape(part)}
		takes := l.Escape == nil || l.Escape(part) == part // the service, as it is
		if part != spelled[0] && takes && part[0] != '.' && !strings.ContainsRune(part, 0) && l.Folder(part) == part {
			spelled = append(spelled, part)
		}
		var longer []string
		for _, s := range spelled {
			for _, folder := range all {
				longer = append(longer, Join(folder, s))
			}
		}
		all = longer[:min(len(longer), maxSpellings)]
	}
	return all
}

// Join is a path of a folder, which may be "", and a name in it.
func Join(folder, base string) string {
	if folder == "" {
		return base
	}
	return folder + "/" + base
}

// Split is the inverse of Join.
func Split(path string) (folder, base string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// Base is the name of the file that a push makes of ref.
func (l Layout) Base(ref backends.Ref, format string) string {
	return l.escape(ref.Name) + ":" + l.escape(ref.Tag) + backends.Ext(format)
}

// Path returns the path that a push of ref writes to.
func (l Layout) Path(ref backends.Ref, format string) string {
	return Join(l.Folders(ref.Collection)[0], l.Base(ref, format))
}

// Ref returns the image that a path is; ok is false if it is none.
func (l Layout) Ref(path string) (ref backends.Ref, ok bool) {
	folder, base := Split(path)
	p, ok := l.Parse(base)
	return backends.Ref{Collection: l.Collection(folder), Name: p.Name, Tag: p.Tag, Version: p.Version}, ok
}

// begins is what all names of files of that name begin with.
func (l Layout) begins(name string) string {
	escaped := l.escape(name)
	n := 0
	for n < len(name) && n < len(escaped) && name[n] == escaped[n] {
		n++
	}
	return name[:n]
}

// CheckName refuses what has no room in a path.
//
// Errors: fs.ErrInvalid.
func (l Layout) CheckName(ref backends.Ref) error {
	path := l.Path(ref, backends.FormatArchive)
	maxPart, maxPath := l.MaxPart, l.MaxPath
	if maxPart == 0 {
		maxPart = 255
	}
	if maxPath == 0 {
		maxPath = 1024
	}
	if len(path) > maxPath {
		return fmt.Errorf("%w: a path of %d bytes (at most %d): %.40q…", fs.ErrInvalid, len(path), maxPath, path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if len(part) > maxPart {
			return fmt.Errorf("%w: a file name of %d bytes (at most %d): %.40q…", fs.ErrInvalid, len(part), maxPart, part)
		}
	}
	return nil
}
