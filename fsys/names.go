// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends"
)

// MaxName is the longest name of a file or directory, in bytes: NAME_MAX.
const MaxName = 255

// The file name of an image is
//
//	<name>:<tag>[@<version>].sif
//
// or has the extension of another format (backends.Ext), with each part escaped
// as in a URI (backends.EscapePart), so that ":" and "@" occur only where they
// separate, and never in the name of a directory. The same file has a name without
// a colon, because many programs end a path there ("-B PATH:/x",
// "oci-archive:PATH"):
//
//	<name>+<tag>[@<version>].sif
//
// with "+" escaped in name and tag, and ":" in the version. Names without an
// extension have no such other spelling: "g++" is a name. Names says which of the two is
// listed. That of a container image has no colon in either case (decision 26).
//
// A file that has no extension in the registry is listed so (decision 76):
//
//	<name>:<tag>[@<version>], or <name> for the tag "latest" (backends.FormatBare)
//
// A name that would be longer than MaxName ends in "~" and eight digits of its
// hash: such a name can be found in its listing, but not parsed.

// Names is how the names of images are spelled in listings and in paths that are
// printed; any other value is NamesColon. Both spellings open everywhere.
type Names string

// What stands between an image's name and its tag.
const (
	NamesColon Names = "colon" // but in the names of container images
	NamesPlus  Names = "plus"
)

// PathOf returns the listed path of an image below the mount point, with slashes.
// The format is that of backends.Image.
func PathOf(n Names, remote string, ref backends.Ref, format string) string {
	path := remote
	if ref.Collection != "" {
		for part := range strings.SplitSeq(ref.Collection, "/") {
			path += "/" + dirName(part)
		}
	}
	return path + "/" + n.fileName(ref, format)
}

// ParsePath is the inverse of PathOf for all Names. It takes the shorter forms that the
// tree accepts, too: without extension, without tag. The format is "" if the extension is
// missing.
//
// Errors: fs.ErrInvalid if path cannot be that of an image, or has a part that
// was shortened.
func ParsePath(path string) (remote string, ref backends.Ref, format string, err error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 2 {
		return "", backends.Ref{}, "", fmt.Errorf("%w: path %q: want REMOTE/COLLECTION/IMAGE:TAG.sif", fs.ErrInvalid, path)
	}
	remote = parts[0]
	if err := backends.CheckRemoteName(remote); err != nil && backends.CheckHost(remote) != nil {
		return "", backends.Ref{}, "", fmt.Errorf("path %q: %w", path, err)
	}
	last := len(parts) - 1
	if ref, format, err = parseFile(parts[last]); err != nil {
		return "", backends.Ref{}, "", fmt.Errorf("path %q: %w", path, err)
	}
	for i, part := range parts[1:] {
		if isShortened(part) {
			return "", backends.Ref{}, "", fmt.Errorf("%w: path %q: %q is shortened", fs.ErrInvalid, path, part)
		}
		if i+1 == last {
			break
		}
		plain, err := parseDir(part)
		if err != nil {
			return "", backends.Ref{}, "", fmt.Errorf("path %q: %w", path, err)
		}
		ref.Collection = join(ref.Collection, plain)
	}
	return remote, ref, format, nil
}

// fileName returns the listed name of an image; ref.Collection does not matter.
func (n Names) fileName(ref backends.Ref, format string) string {
	return string(n.appendFileName(nil, ref, format))
}

// appendFileName appends an image's listed name to b.
func (n Names) appendFileName(b []byte, ref backends.Ref, format string) []byte {
	start := len(b)
	if format == backends.FormatBare && ref.Tag == backends.DefaultTag && ref.Version == "" {
		return append(b, shorten(backends.EscapePart(ref.Name), "")...)
	}
	if n == NamesPlus && backends.IsPlain(format) {
		format = "" // a plus separates only where an extension follows
	}
	if n == NamesPlus || format == backends.FormatArchive {
		b = append(b, escapePlus(ref.Name)+"+"+escapePlus(ref.Tag)...)
		if ref.Version != "" {
			b = append(b, "@"+backends.EscapePart(ref.Version)...)
		}
	} else {
		b = append(b, backends.EscapePart(ref.Name)...)
		b = append(b, ':')
		b = append(b, backends.EscapePart(ref.Tag)...)
		if ref.Version != "" {
			b = append(b, '@')
			b = append(b, backends.EscapeVersion(ref.Version)...)
		}
	}
	ext := backends.Ext(format)
	if len(b)-start+len(ext) > MaxName {
		return append(b[:start], shorten(string(b[start:]), ext)...)
	}
	return append(b, ext...)
}

// escapePlus is backends.EscapePart where "+" separates, too.
func escapePlus(part string) string {
	return strings.ReplaceAll(backends.EscapePart(part), "+", "%2B")
}

// isPlusName reports whether a "+" separates the parts of that file name. Directories
// can be named so, too.
func isPlusName(name string) bool {
	rest, format := backends.CutExt(name)
	rest, _, _ = strings.Cut(rest, "@")
	return format != "" && strings.Contains(rest, "+") && !strings.Contains(rest, ":")
}

// parseFile is the inverse of fileName, and takes names without extension or tag, too.
// The ref has no collection.
func parseFile(name string) (ref backends.Ref, format string, err error) {
	bad := func(why string) (backends.Ref, string, error) {
		return backends.Ref{}, "", fmt.Errorf("%w: file name %q: %s", fs.ErrInvalid, name, why)
	}
	rest, format := backends.CutExt(name)
	rest, version, hasVersion := strings.Cut(rest, "@")
	separator := ":"
	if isPlusName(name) {
		separator = "+"
	}
	rest, tag, hasTag := strings.Cut(rest, separator)
	if !hasTag {
		tag = backends.DefaultTag
	}
	switch {
	case separator == "+" && (rest == "" || tag == "" || strings.Contains(tag, "+")):
		return bad("a \"+\" separates name and tag: write %2B for one that is part of them, or a colon between them")
	case hasTag && tag == "" || hasVersion && version == "":
		return bad("nothing after \":\" or \"@\"")
	case strings.Contains(tag, ":"):
		return bad("more than one tag")
	case strings.Contains(version, "@"):
		return bad("more than one version")
	}
	for _, p := range []struct {
		dst *string
		src string
	}{{&ref.Name, rest}, {&ref.Tag, tag}, {&ref.Version, version}} {
		if *p.dst, err = backends.UnescapePart(p.src); err != nil {
			return bad(err.Error())
		}
	}
	if err := ref.Check(); err != nil {
		return backends.Ref{}, "", fmt.Errorf("file name %q: %w", name, err)
	}
	return ref, format, nil
}

// dirName returns the name of the directory of one part of a collection.
func dirName(part string) string { return shorten(backends.EscapePart(part), "") }

// parseDir is the inverse of dirName. It takes no other spelling: a directory has one
// name.
func parseDir(name string) (string, error) {
	part, err := backends.UnescapePart(name)
	if err != nil {
		return "", fmt.Errorf("%w: directory name %q: %v", fs.ErrInvalid, name, err)
	}
	ref := backends.Ref{Name: part, Tag: backends.DefaultTag}
	if err := ref.Check(); err != nil {
		return "", fmt.Errorf("directory name %q: %w", name, err)
	}
	if backends.EscapePart(part) != name {
		return "", fmt.Errorf("%w: directory name %q: write it %q", fs.ErrInvalid, name, backends.EscapePart(part))
	}
	return part, nil
}

// join appends one part to a collection.
func join(collection, part string) string {
	if collection == "" {
		return part
	}
	return collection + "/" + part
}

const hashDigits = 8

// shorten returns stem+ext, or where that is too long a beginning of stem, "~",
// a hash of the whole, and ext.
func shorten(stem, ext string) string {
	if len(stem)+len(ext) <= MaxName {
		return stem + ext
	}
	sum := sha256.Sum256([]byte(stem + ext))
	cut := MaxName - len(ext) - 1 - hashDigits
	for !utf8.RuneStart(stem[cut]) {
		cut--
	}
	// An escape is not cut in two: the name must stay a valid one.
	if i := strings.LastIndexByte(stem[:cut], '%'); i >= 0 && i > cut-3 {
		cut = i
	}
	return stem[:cut] + "~" + hex.EncodeToString(sum[:])[:hashDigits] + ext
}

// isShortened reports whether name can be one that shorten has cut. Others can look so,
// too, so the listing decides what such a name means.
func isShortened(name string) bool {
	rest, _ := backends.CutExt(name)
	tilde := len(rest) - 1 - hashDigits
	const cutAtMost = len("%XX") + utf8.UTFMax
	if len(name) > MaxName || len(name) < MaxName-cutAtMost || tilde < 0 || rest[tilde] != '~' {
		return false
	}
	return strings.Trim(rest[tilde+1:], "0123456789abcdef") == ""
}
