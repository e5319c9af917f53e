// SPDX-License-Identifier: Apache-2.0

package gitlab

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// GitLab takes letters, digits and "._-+" in the name of a generic package, and in a version the
// same with "_", but no dots that stand together. Between the parts of a name is "+.", and what they cannot
// have becomes "+" and two upper-case hexadecimal digits:
//
//	image                 package          version  file
//	alpine:3.20           alpine           3.20     alpine.sif
//	vsoch/hello:latest    vsoch+.hello     latest   hello.sif
//	a/b/c:d@1             a+.b+.c          d+401    c.sif
//
// A package of others has any file with the extension of a format. A part of its name that is
// no such escape ("c++") stands for itself.

const (
	separator = "+."
	maxName   = 255 // bytes; GitLab's limit for each
)

// encode escapes one part of a name.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		case c == '.' && i > 0 && i < len(s)-1 && s[i-1] != '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// decode is the inverse of encode; what that would not have written stands for itself.
func decode(s string) string {
	if strings.Contains(s, "%") {
		return s
	}
	plain, err := backends.UnescapePart(strings.ReplaceAll(s, "+", "%"))
	if err != nil || encode(plain) != s {
		return s
	}
	return plain
}

func parts(ref backends.Ref) []string {
	if ref.Collection == "" {
		return []string{ref.Name}
	}
	return append(strings.Split(ref.Collection, "/"), ref.Name)
}

func packageName(ref backends.Ref) string {
	all := parts(ref)
	for i, part := range all {
		all[i] = encode(part)
	}
	return strings.Join(all, separator)
}

// published is what GitLab takes as the name of a package, or as a version.
var published = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)

// spellings returns the package and the version that ref can be: those that a push makes first.
func spellings(ref backends.Ref) [][2]string {
	first := [2]string{packageName(ref), encode(ref.Tag)}
	all := [][2]string{first}
	for _, name := range []string{first[0], strings.Join(parts(ref), separator)} {
		for _, version := range []string{first[1], ref.Tag} {
			if next := [2]string{name, version}; next != first && published.MatchString(name) && published.MatchString(version) {
				all = append(all, next)
			}
		}
	}
	return all
}

// ref returns the image that a package is; ok is false for what cannot be a name.
func (p pack) ref() (ref backends.Ref, ok bool) {
	all := strings.Split(p.Name, separator)
	for i, part := range all {
		if all[i] = decode(part); part == "" || i < len(all)-1 && strings.Contains(all[i], "/") {
			all = []string{decode(p.Name)} // not how we write it
			break
		}
	}
	last := len(all) - 1
	ref = backends.Ref{Collection: strings.Join(all[:last], "/"), Name: all[last], Tag: decode(p.Version)}
	return ref, ref.Check() == nil && ref.Name != "" && ref.Tag != ""
}

// entry returns what a package is in the listing of a collection.
func (p pack) entry(collection string) (backends.Entry, bool) {
	ref, ok := p.ref()
	if !ok {
		return backends.Entry{}, false
	}
	if ref.Collection == collection {
		return backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: backends.FormatSIF}}, true
	}
	below, prefix := ref.Collection, ""
	if collection != "" {
		prefix = collection + "/"
		if below, ok = strings.CutPrefix(ref.Collection, prefix); !ok {
			return backends.Entry{}, false
		}
	}
	child, _, _ := strings.Cut(below, "/")
	return backends.Entry{Collection: prefix + child}, true
}

// strange reports whether others may have spelled a name with that otherwise than we do.
func strange(r rune) bool { return !published.MatchString(string(r)) || r == '+' || r == '.' }
