// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends"
)

// How a path below the root tells a name. The last part is a stem, perhaps
// "@VERSION", and one of the extensions .sif, .simg, .img.
//
//	path              collection  image  tag
//	c/i:t.sif         c           i      t       sregistry since 0.2.23, and what Push writes
//	c/i:t@v.sif       c           i      t       the same, with a version
//	a/b/i:t.sif       a/b         i      t
//	i:t.sif           (root)      i      t
//	c/i-t.simg        c           i-t    latest  sregistry 0.0.99 to 0.2.22
//	c/i.sif           c           i      latest  put there by hand
//
// The form with a dash does not tell where the tag begins ("a-b-c" may be a:b-c
// or a-b:c), so it is not guessed in a listing. Who asks for i:t knows: Stat
// finds it under the old name too.
//
// The parts are escaped as everywhere (backends.EscapePart), and so is what
// Dropbox takes no name with. A part that is no such escape, "100%" for one,
// stands for itself.

const maxComponent = 255 // characters of one part of a path

// A parsed name is what a file's last path part tells.
type parsed struct {
	name, tag string
	version   string // as written; "" if there is none
	format    string
	flat      bool // there was no colon: the tag is only assumed
}

var formats = []struct{ ext, format string }{{".sif", "sif"}, {".simg", "simg"}, {".img", ""}}

// parse reads a file's name; ok is false if it is not an image's.
func parse(base string) (p parsed, ok bool) {
	stem := ""
	for _, f := range formats {
		if cut, has := strings.CutSuffix(base, f.ext); has {
			stem, p.format, ok = cut, f.format, true
		}
	}
	if !ok || strings.HasPrefix(base, ".") {
		return p, false
	}
	stem, version, _ := strings.Cut(stem, "@")
	p.version = decode(version, backends.EscapeVersion)
	name, tag, colon := strings.Cut(stem, ":")
	if !colon || name == "" || tag == "" {
		p.name, p.tag, p.flat = decode(stem, escapeName), backends.DefaultTag, true
		return p, stem != ""
	}
	p.name, p.tag = decode(name, escapeName), decode(tag, escapeTag)
	return p, true
}

// isRef reports whether p, in ref's collection, is ref.
func (p parsed) isRef(ref backends.Ref) bool { return p.name == ref.Name && p.tag == ref.Tag }

// isOldRef reports whether p is what sregistry once wrote for ref.
func (p parsed) isOldRef(ref backends.Ref) bool {
	return p.flat && p.name == ref.Name+"-"+ref.Tag
}

// base is the file name that Push gives to ref.
func base(ref backends.Ref, ext string) string {
	return escapeName(ref.Name) + ":" + escapeTag(ref.Tag) + ext
}

func extension(format string) string {
	if format == "simg" {
		return ".simg"
	}
	return ".sif"
}

// reserved are names that Dropbox takes no folder or file with, in lower case.
// https://help.dropbox.com/organize/file-names
var reserved = []string{"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr", ".dropbox.cache"}

// escapeFolder escapes one part of a collection.
func escapeFolder(part string) string {
	s := escapeEnd(escapeName(part))
	if slices.Contains(reserved, strings.ToLower(s)) {
		return percent(s[0]) + s[1:]
	}
	return s
}

// escapeName escapes the beginning of a path part: "~…" is a temporary file.
func escapeName(name string) string {
	s := escapeTag(name)
	if s != "" && (s[0] == ' ' || s[0] == '~') {
		return percent(s[0]) + s[1:]
	}
	return s
}

// escapeTag escapes the middle of a path part.
func escapeTag(tag string) string {
	return strings.ReplaceAll(backends.EscapePart(tag), `\`, "%5C")
}

// escapeEnd escapes what Dropbox takes no name with at its end.
func escapeEnd(s string) string {
	if last := len(s) - 1; last >= 0 && (s[last] == '.' || s[last] == ' ') {
		return s[:last] + percent(s[last])
	}
	return s
}

func percent(c byte) string { return fmt.Sprintf("%%%02X", c) }

// decode is the inverse of escape; what escape would not have written stands
// for itself.
func decode(component string, escape func(string) string) string {
	plain, err := backends.UnescapePart(component)
	if err != nil || escape(plain) != component {
		return component
	}
	return plain
}

// decodeFolder is decode for a part of a collection, in which an escaped slash
// would make two parts of one.
func decodeFolder(component string) string {
	if plain := decode(component, escapeFolder); !strings.Contains(plain, "/") {
		return plain
	}
	return component
}

const maxSpellings = 8 // of one collection, that are looked for

// paths returns the folders that collection can be, the one that Push writes to
// first.
func (c *client) paths(collection string) []string {
	all := []string{c.root}
	if collection == "" {
		return all
	}
	for part := range strings.SplitSeq(collection, "/") {
		spelled := []string{escapeFolder(part)}
		if !strings.ContainsAny(part, "/\\\x00") && part != spelled[0] && decodeFolder(part) == part {
			spelled = append(spelled, part)
		}
		var longer []string
		for _, s := range spelled {
			for _, path := range all {
				longer = append(longer, path+"/"+s)
			}
		}
		all = longer[:min(len(longer), maxSpellings)]
	}
	return all
}

// path is the path that Push writes ref to.
func (c *client) path(ref backends.Ref, ext string) string {
	return c.paths(ref.Collection)[0] + "/" + base(ref, ext)
}

// CheckName refuses what has no room in a path part.
func (c *client) CheckName(ref backends.Ref) error {
	for part := range strings.SplitSeq(c.path(ref, ".simg"), "/") {
		if n := utf8.RuneCountInString(part); n > maxComponent {
			return fmt.Errorf("%w: a file name of %d characters (at most %d): %.40q…", fs.ErrInvalid, n, maxComponent, part)
		}
	}
	return nil
}

// collectionOf returns the collection that a folder's path is, without looking
// how its parts are really spelled.
func (c *client) collectionOf(folder string) string {
	parts := strings.Split(strings.TrimPrefix(folder, "/"), "/")
	parts = parts[min(strings.Count(c.root, "/"), len(parts)):]
	for i, part := range parts {
		parts[i] = decodeFolder(part)
	}
	return strings.Join(parts, "/")
}

// parent returns the path of the folder that path lies in.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)]
}
