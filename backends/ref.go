// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"io/fs"
	"strings"
)

// The parts of a name that may be left out.
const (
	DefaultCollection = "library"
	DefaultTag        = "latest"
)

// A Ref names an image within one registry. Case is kept, and any byte but NUL
// may occur in a part. The zero Ref names nothing.
type Ref struct {
	Collection string // parts joined by "/"; "" where the service holds images at its root
	Name       string
	Tag        string // never empty in a Ref that was parsed
	Version    string // a digest or a revision; "" for what the tag names now
}

// Repository returns collection and name joined by "/".
func (r Ref) Repository() string {
	if r.Collection == "" {
		return r.Name
	}
	return r.Collection + "/" + r.Name
}

// String returns the ref as ParseRef takes it: "collection/name:tag[@version]".
// An image at the root of its service is written "/name:tag".
func (r Ref) String() string {
	var b strings.Builder
	if r.Collection != "" {
		b.WriteString(EscapePath(r.Collection))
	}
	b.WriteByte('/')
	b.WriteString(EscapePart(r.Name))
	if r.Tag != "" {
		b.WriteByte(':')
		b.WriteString(escapeLast(r.Tag, r.Version == ""))
	}
	if r.Version != "" {
		b.WriteByte('@')
		b.WriteString(escapeVersion(r.Version))
	}
	return b.String()
}

// MarshalText writes the ref as String does; the zero Ref is the empty text.
func (r Ref) MarshalText() ([]byte, error) {
	if r == (Ref{}) {
		return nil, nil
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	ref, err := ParseRef(string(text))
	*r = ref
	return err
}

// Check returns fs.ErrInvalid if r could not be a name in any registry: an
// empty part, "." or "..", a NUL byte.
func (r Ref) Check() error {
	if r.Name == "" || r.Tag == "" && r.Version == "" {
		return fmt.Errorf("%w: no image name", fs.ErrInvalid)
	}
	for rest, more := r.Collection, r.Collection != ""; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if err := checkPart(part); err != nil {
			return err
		}
	}
	for _, s := range [...]string{r.Tag, r.Version} {
		if strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("%w: NUL byte in %q", fs.ErrInvalid, s)
		}
	}
	return checkPart(r.Name)
}

func checkPart(part string) error {
	switch {
	case part == "":
		return fmt.Errorf("%w: empty part in a name", fs.ErrInvalid)
	case part == "." || part == "..":
		return fmt.Errorf("%w: %q in a name", fs.ErrInvalid, part)
	case strings.IndexByte(part, 0) >= 0:
		return fmt.Errorf("%w: NUL byte in %q", fs.ErrInvalid, part)
	}
	return nil
}

// ParseRef reads "[collection/]name[:tag][@version]". A name without a slash is
// in DefaultCollection, "/name" is at the root; no tag means DefaultTag. One
// extension of an image (.sif, .simg …) at the very end is dropped.
//
// Errors: fs.ErrInvalid, with the reason.
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, fmt.Errorf("%w: image name %q: %s", fs.ErrInvalid, s, why)
	}
	ref := Ref{Collection: DefaultCollection, Tag: DefaultTag}
	rest, _ := CutExt(s)
	if i := versionSlash(rest); i >= 0 {
		ref.Collection, rest = rest[:i], rest[i+1:]
	}
	rest, version, hasVersion := strings.Cut(rest, "@")
	rest, tag, hasTag := strings.Cut(rest, ":")
	if hasTag && tag == "" || hasVersion && version == "" {
		return bad("nothing after \":\" or \"@\"")
	}
	if strings.Contains(tag, ":") {
		return bad("more than one tag")
	}
	if hasTag {
		ref.Tag = tag
	}
	var err error
	if ref.Collection, err = UnescapePath(ref.Collection); err != nil {
		return bad(err.Error())
	}
	for _, p := range []struct {
		dst *string
		src string
	}{{&ref.Name, rest}, {&ref.Tag, ref.Tag}, {&ref.Version, version}} {
		if *p.dst, err = UnescapePart(p.src); err != nil {
			return bad(err.Error())
		}
	}
	if err := ref.Check(); err != nil {
		return Ref{}, fmt.Errorf("image name %q: %w", s, err)
	}
	return ref, nil
}

// versionSlash returns the index of the slash before the name: the last one
// that does not stand in the version.
func versionSlash(s string) int {
	if at := strings.IndexByte(s, '@'); at >= 0 {
		s = s[:at]
	}
	return strings.LastIndexByte(s, '/')
}
