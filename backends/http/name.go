// SPDX-License-Identifier: Apache-2.0

package http

import (
	"iter"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// How a file's path below the folder tells a name. Folders are the collection;
// the file is a stem and the extension of a format.
//
//	path            collection  image  tag
//	c/i:t.sif       c           i      t       as the mount shows it
//	a/b/i:t.sif     a/b         i      t
//	i:t.simg        (root)      i      t
//	c/i.sif         c           i      latest  also written c/i:latest.sif, which goes before
//	c/i+t.oci.tar   c           i      t       as the mount shows container images
//	c/i:t           c           i      t       what its first bytes say (FormatPlain)
//	c/i             c           i      latest  likewise, if the setting has "" (FormatBare)
//
// Nothing else in a name has a meaning: "i_1.0.sif", as apptainer names what it
// pulls, is the image i_1.0, because "my_tool.sif" may not be the image my. The
// parts are escaped as everywhere (backends.EscapePart). A part that is no such
// escape, "100%" for one, stands for itself.

// A naming is what settings make of names.
type naming struct {
	also backends.Extensions // of files that count as images besides the usual ones
	sums string              // the file with digests
}

// parse reads a file's name; ok is false if it is not an image's.
func (n naming) parse(base string) (name, tag, format string, ok bool) {
	stem, format := backends.CutExt(base)
	if stem == "" || stem[0] == '.' || !isPlain(base) || base == n.sums {
		return "", "", "", false
	}
	if format == "" {
		if format = backends.FormatPlain; !n.also.Plain(base) {
			return "", "", "", false
		}
	}
	left, right, tagged := strings.Cut(stem, ":")
	if !tagged && format == backends.FormatArchive {
		left, right, tagged = strings.Cut(stem, "+")
	}
	switch {
	case tagged && left != "" && right != "":
		return decode(left), decode(right), format, true
	case format == backends.FormatPlain:
		format = backends.FormatBare
	}
	return decode(stem), backends.DefaultTag, format, true
}

// order lists the formats as they are looked for; first goes before the others, if
// it is one of them.
func order(first string) []string {
	all := []string{backends.FormatSIF, backends.FormatPlain, backends.FormatBare}
	all = append(all, backends.Formats()[1:]...)
	if i := slices.Index(all, first); i > 0 {
		copy(all[1:], all[:i])
		all[0] = first
	}
	return all
}

// files yields the names of files that ref can be, the one that counts before
// the others first, or those of a format that is known to be usual. With a format
// only those of it.
func (n naming) files(ref backends.Ref, format, usual string) iter.Seq[string] {
	formats := order(usual)
	if slices.Contains(formats, format) {
		formats = []string{format}
	}
	return func(yield func(string) bool) {
		for _, format := range formats {
			for _, stem := range stems(ref, format) {
				base := stem + backends.Ext(format)
				// A name with a colon of its own cannot stand for itself.
				name, tag, is, ok := n.parse(base)
				if ok && name == ref.Name && tag == ref.Tag && is == format && !yield(base) {
					return
				}
			}
		}
	}
}

func stems(ref backends.Ref, format string) (all []string) {
	names := spellings(ref.Name, decode)
	if format != backends.FormatBare {
		for _, name := range names {
			for _, tag := range spellings(ref.Tag, decode) {
				if format == backends.FormatArchive {
					all = append(all, name+"+"+tag)
				}
				all = append(all, name+":"+tag)
			}
		}
	}
	if ref.Tag == backends.DefaultTag && format != backends.FormatPlain {
		all = append(all, names...)
	}
	return all
}

// rank is the place of base among files(ref).
func (n naming) rank(ref backends.Ref, base, usual string) int {
	i := 0
	for other := range n.files(ref, "", usual) {
		if other == base {
			break
		}
		i++
	}
	return i
}

const maxSpellings = 8 // of one collection, that are looked for

// folders returns the addresses that collection can be, each with a slash at its
// end.
func (c *client) folders(collection string) []string {
	all := []string{c.home.String()}
	if collection == "" {
		return all
	}
	for part := range strings.SplitSeq(collection, "/") {
		var longer []string
		for _, spelled := range spellings(part, decodeFolder) {
			if spelled[0] == '.' {
				continue // hidden, and "." and ".."
			}
			for _, at := range all {
				longer = append(longer, at+segment(spelled)+"/")
			}
		}
		all = longer[:min(len(longer), maxSpellings)]
	}
	return all
}

// segment writes a name as one segment of a path. All but unreserved characters
// are escaped: what "+", ";" or "@" mean in a path depends on the server.
func segment(name string) string {
	return strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
}

// isPlain reports whether name can be one file or folder, and no way out of where
// it lies.
func isPlain(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// child reads a link on the page of folder: it must lead to what lies directly
// in it.
func child(folder *url.URL, href string) (name string, isFolder, ok bool) {
	if bare, isFolder := strings.CutSuffix(href, "/"); isSegment(bare) { // as nearly all are
		name, err := url.PathUnescape(bare)
		if err != nil || !isPlain(name) {
			return "", false, false
		}
		return name, isFolder, true
	}
	link, err := url.Parse(strings.Trim(href, " \t\r\n\f")) // as HTML strips them
	if err != nil || link.RawQuery != "" || link.ForceQuery || link.Fragment != "" || link.Opaque != "" || link.User != nil {
		return "", false, false
	}
	to := folder.ResolveReference(link)
	if to.Scheme != folder.Scheme || !strings.EqualFold(to.Host, folder.Host) {
		return "", false, false
	}
	// Before it is unescaped: "%2f" is no slash, and "%2e%2e" no name.
	rest := to.EscapedPath()
	rest, isFolder = strings.CutSuffix(rest, "/")
	above, last := path.Split(rest)
	above, err = url.PathUnescape(above)
	if err != nil || above != folder.Path {
		return "", false, false
	}
	name, err = url.PathUnescape(last)
	if err != nil || !isPlain(name) {
		return "", false, false
	}
	return name, isFolder, true
}

// isSegment reports whether a link is one segment of a path, of which nothing has a
// meaning but what is escaped.
func isSegment(href string) bool {
	for _, c := range []byte(href) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~', c == '.', c == '%', c == '+':
		default:
			return false
		}
	}
	return href != "" && href[0] != '.'
}

// decode is the inverse of EscapePart; what EscapePart would not have written
// stands for itself.
func decode(component string) string {
	plain, err := backends.UnescapePart(component)
	if err != nil || backends.EscapePart(plain) != component {
		return component
	}
	return plain
}

// decodeFolder is decode for a part of a collection, in which an escaped slash
// would make two parts of one.
func decodeFolder(component string) string {
	if plain := decode(component); !strings.Contains(plain, "/") {
		return plain
	}
	return component
}

// spellings are the components from which dec makes part.
func spellings(part string, dec func(string) string) []string {
	escaped := backends.EscapePart(part)
	if escaped == part || strings.ContainsAny(part, "/\x00") || dec(part) != part {
		return []string{escaped}
	}
	return []string{escaped, part}
}
