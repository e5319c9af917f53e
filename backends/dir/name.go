// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// How a file's path, relative to the root, tells a name. The last part is
// "STEM[@VERSION]" and one of the extensions .sif, .simg, .img.
//
//	path                      collection  image  tag
//	c/i/t@v.sif               c           i      t       sregistry since 0.2.16, and what Push writes
//	a/b/i/t@v.sif             a/b         i      t
//	c/i:t@v.simg              c           i      t       sregistry until 0.0.5
//	i:t@v.sif                 (root)      i      t       what Push writes where there is no collection
//	c-i:t@v.simg              (root)      c-i    t       sregistry until 0.0.98
//	c-i-t@v.simg              (root)      c-i-t  latest  sregistry until 0.2.15
//	c/i.sif                   c           i      latest  a directory that somebody filled by hand
//	c/i:t                     c           i      t       likewise: what its first bytes say (FormatPlain)
//	c/i                       c           i      latest  likewise, if the setting has "" (FormatBare)
//
// The flat layouts with dashes do not tell where the collection ends
// ("a-b-c" may be a/b-c or a-b/c), so it is not guessed: such an image is
// shown at the root under its whole name.
//
// The parts are escaped as everywhere (backends.EscapePart). A part that is no
// such escape, "100%" for one, stands for itself.

const (
	private      = ".sregfs"
	hexDigits    = 64 // of a sha256
	maxComponent = 255
)

// A parsed name is what a file's last path part tells.
type parsed struct {
	image   string // "" where the directory tells it
	tag     string
	version string // as written; "" if there is none
	format  string
}

var formats = []struct{ ext, format string }{{".sif", "sif"}, {".simg", "simg"}, {".img", ""}}

// parse reads a file's name; ok is false if it is not an image's. also says which
// count besides those with an extension and a tag.
func parse(base string, also backends.Extensions) (p parsed, ok bool) {
	if strings.HasPrefix(base, ".") {
		return p, false
	}
	if p = split(base); p.format == backends.FormatPlain && !also.Plain(base) {
		return p, false
	}
	return p, true
}

// split is parse for what is known to be an image's name.
func split(base string) (p parsed) {
	stem := base
	p.format = backends.FormatPlain
	for _, f := range formats {
		if cut, has := strings.CutSuffix(base, f.ext); has {
			stem, p.format = cut, f.format
		}
	}
	stem, p.version, _ = strings.Cut(stem, "@")
	p.version = decode(p.version)
	image, tag, flat := strings.Cut(stem, ":")
	if flat && image != "" && tag != "" {
		p.image, p.tag = decode(image), decode(tag)
		return p
	}
	p.tag = cmp.Or(decode(stem), backends.DefaultTag)
	return p
}

// layout is the path that Push writes ref to.
func layout(ref backends.Ref, hex, ext string) string {
	tag := backends.EscapePart(ref.Tag) + "@" + hex + ext
	if ref.Collection == "" {
		return backends.EscapePart(ref.Name) + ":" + tag
	}
	return path.Join(backends.EscapePath(ref.Collection), backends.EscapePart(ref.Name), tag)
}

// layoutOf is layout for a file whose digest may not be known.
func layoutOf(ref backends.Ref, digest, ext string) string {
	hex, known := strings.CutPrefix(digest, "sha256:")
	target := layout(ref, hex, ext)
	if !known {
		target = strings.TrimSuffix(target, "@"+ext) + ext
	}
	return target
}

// extension is the one that Push gives to a format.
func extension(format string) string {
	if format == "simg" {
		return ".simg"
	}
	return ".sif"
}

// decode is the inverse of EscapePart; what EscapePart would not have written
// stands for itself.
func decode(component string) string {
	if backends.EscapePart(component) == component {
		return component
	}
	plain, err := backends.UnescapePart(component)
	if err != nil || backends.EscapePart(plain) != component {
		return component
	}
	return plain
}

// decodeCollection is decode for a part of a collection, in which an escaped
// slash would make two parts of one.
func decodeCollection(component string) string {
	if plain := decode(component); !strings.Contains(plain, "/") {
		return plain
	}
	return component
}

// spellings are the path parts from which dec makes part.
func spellings(part string, dec func(string) string) []string {
	escaped := backends.EscapePart(part)
	if escaped == part || strings.ContainsAny(part, "/\x00") || strings.HasPrefix(part, ".") || dec(part) != part {
		return []string{escaped}
	}
	return []string{escaped, part}
}

// CheckName refuses what has no room in a file name.
func (c *client) CheckName(ref backends.Ref) error {
	target := layout(ref, strings.Repeat("0", hexDigits), ".simg")
	for part := range strings.SplitSeq(target, "/") {
		if len(part) > maxComponent {
			return fmt.Errorf("%w: a file name of %d bytes (at most %d): %.40q…", fs.ErrInvalid, len(part), maxComponent, part)
		}
	}
	return nil
}
