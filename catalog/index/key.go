// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A key is a kind and some parts, each ended by a NUL byte, so that keys sort as
// their parts do. NUL and SOH within a part are written as SOH and the byte
// plus one, which keeps the order.
//
//	e remote collection "i" name tag    an image
//	e remote collection "c" child       a collection in a collection
//	h remote collection                 when the collection was listed
//	v remote collection name version tag   an image by its version; no tag with a digest
//	b key                               a blob of the cache
//	p remote image digest origin        state of a push, see catalog/uploads
//	t remote collection "i" name tag    what an image says of itself
//	l key value "e" remote …            an image by a label, in lower case
//	r key                               a blob whose texts are stored
//	y remote collection name tag        what an image was copied from, see catalog/uploads
const (
	kindEntry   = 'e'
	kindHeader  = 'h'
	kindVersion = 'v'
	kindBlob    = 'b'
	kindSession = 'p'
	kindText    = 't'
	kindLabel   = 'l'
	kindRead    = 'r'
	kindCopied  = 'y'

	// KindImage and KindCollection are the kinds of entries.
	KindImage      = 'i'
	KindCollection = 'c'
)

// appendPart appends one part and its end.
func appendPart(k []byte, part string) []byte { return append(appendOpen(k, part), 0) }

// appendOpen appends the beginning of a part.
func appendOpen(k []byte, part string) []byte {
	if strings.IndexByte(part, 0) < 0 && strings.IndexByte(part, 1) < 0 {
		return append(k, part...)
	}
	for _, c := range []byte(part) {
		if c <= 1 {
			k = append(k, 1)
			c++
		}
		k = append(k, c)
	}
	return k
}

// cutPart splits off the first part of k.
func cutPart(k []byte) (part, rest []byte, ok bool) {
	part, rest, ok = bytes.Cut(k, []byte{0})
	if !ok || bytes.IndexByte(part, 1) < 0 {
		return part, rest, ok
	}
	var plain []byte
	for i := 0; i < len(part); i++ {
		c := part[i]
		if c == 1 {
			if i++; i == len(part) || part[i] < 1 || part[i] > 2 {
				return nil, nil, false
			}
			c = part[i] - 1
		}
		plain = append(plain, c)
	}
	return plain, rest, true
}

// ListPrefix begins the keys of what is directly in a collection.
func ListPrefix(remote, collection string) []byte {
	k := make([]byte, 0, len(remote)+len(collection)+64)
	return appendPart(appendPart(append(k, kindEntry), remote), collection)
}

// ImageKey is the key of an image.
func ImageKey(remote string, ref backends.Ref) []byte {
	k := append(ListPrefix(remote, ref.Collection), KindImage)
	return appendPart(appendPart(k, ref.Name), ref.Tag)
}

// ChildKey is the key of a collection in the listing of its parent.
func ChildKey(remote, collection string) []byte {
	parent, name := Parent(collection)
	return appendPart(append(ListPrefix(remote, parent), KindCollection), name)
}

// ChildKeys are those of a collection and of all above it.
func ChildKeys(remote, collection string) (keys [][]byte) {
	for ; collection != ""; collection, _ = Parent(collection) {
		keys = append(keys, ChildKey(remote, collection))
	}
	return keys
}

// HeaderKey is the key of a collection's header.
func HeaderKey(remote, collection string) []byte {
	return appendPart(appendPart([]byte{kindHeader}, remote), collection)
}

// VersionPrefix begins the keys of an image's versions.
func VersionPrefix(remote string, ref backends.Ref) []byte {
	return appendPart(appendPart(appendPart([]byte{kindVersion}, remote), ref.Collection), ref.Name)
}

// VersionKey is the key of a version of an image. A digest means the same bytes whatever
// the tag; an architecture or a revision is that of the tag.
func VersionKey(remote string, ref backends.Ref) []byte {
	tag := ref.Tag
	if backends.CheckDigest(ref.Version) == nil {
		tag = ""
	}
	return appendPart(versionPrefix(remote, ref), tag)
}

// versionPrefix begins the keys of one version, of whatever tag.
func versionPrefix(remote string, ref backends.Ref) []byte {
	return appendPart(VersionPrefix(remote, ref), ref.Version)
}

// CutVersionKey reads the key of a version.
func CutVersionKey(key []byte) (remote string, ref backends.Ref, ok bool) {
	var parts [5]string
	rest := key[1:]
	for i := range parts {
		var part []byte
		if part, rest, ok = cutPart(rest); !ok {
			return "", ref, false
		}
		parts[i] = string(part)
	}
	return parts[0], backends.Ref{Collection: parts[1], Name: parts[2], Version: parts[3], Tag: parts[4]}, len(rest) == 0
}

// RefKey is the key under which the facts of ref are stored.
func RefKey(remote string, ref backends.Ref) []byte {
	if ref.Version != "" {
		return VersionKey(remote, ref)
	}
	return ImageKey(remote, ref)
}

// CutEntry reads what follows the collection in the key of an entry: the child's
// name, or the name and tag of an image.
func CutEntry(rest []byte) (kind byte, name, tag []byte, ok bool) {
	if len(rest) == 0 {
		return 0, nil, nil, false
	}
	kind = rest[0]
	name, rest, ok = cutPart(rest[1:])
	if ok && kind == KindImage {
		tag, rest, ok = cutPart(rest)
	}
	return kind, name, tag, ok && len(rest) == 0 && (kind == KindImage || kind == KindCollection)
}

// cutImageKey reads the key of an image.
func cutImageKey(key []byte) (remote, collection, name, tag []byte, ok bool) {
	if len(key) == 0 || key[0] != kindEntry {
		return nil, nil, nil, nil, false
	}
	remote, rest, ok := cutPart(key[1:])
	if !ok {
		return nil, nil, nil, nil, false
	}
	if collection, rest, ok = cutPart(rest); !ok {
		return nil, nil, nil, nil, false
	}
	kind, name, tag, ok := CutEntry(rest)
	return remote, collection, name, tag, ok && kind == KindImage
}

// Parent splits a collection into its parent and its last part.
func Parent(collection string) (parent, name string) {
	i := strings.LastIndexByte(collection, '/')
	if i < 0 {
		return "", collection
	}
	return collection[:i], collection[i+1:]
}

// Join is the inverse of Parent.
func Join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "/" + name
}

// SessionPrefix begins the keys of SessionKey.
func SessionPrefix() []byte { return []byte{kindSession} }

// SessionKey is the key of the state of one push, which the parts identify.
func SessionKey(parts ...string) []byte {
	k := SessionPrefix()
	for _, part := range parts {
		k = appendPart(k, part)
	}
	return k
}

// CopiedKey is the key of what an image was copied from.
func CopiedKey(remote string, ref backends.Ref) []byte {
	k := []byte{kindCopied}
	for _, part := range []string{remote, ref.Collection, ref.Name, ref.Tag} {
		k = appendPart(k, part)
	}
	return k
}

// VersionsPrefix begins the keys of all versions.
func VersionsPrefix() []byte { return []byte{kindVersion} }
