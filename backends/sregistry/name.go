// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A name is an image in the server's words: a collection of one part, a
// container whose name may have slashes, a tag. The first part of our
// collection is its collection; further ones belong to the container's name.
type name struct{ collection, container, tag string }

func split(ref backends.Ref) name {
	collection, rest, nested := strings.Cut(ref.Collection, "/")
	n := name{collection: collection, container: ref.Name, tag: ref.Tag}
	if nested {
		n.container = rest + "/" + ref.Name
	}
	return n
}

// built reports whether in is the collection of a container that Google Cloud Build has
// made: server and container are then called by the whole path of a repository, and the
// server finds "github/repo:tag" under that name. For us it is repo in github.
func (n name) built(in, container string) bool {
	return in == container && container == n.collection+"/"+n.container
}

// nameOf is what to ask for to get that container of that collection.
func nameOf(in, container, tag string) name {
	if top, rest, slashed := strings.Cut(in, "/"); slashed && in == container {
		return name{top, rest, tag}
	}
	return name{in, container, tag}
}

// ref is the inverse of split.
func (n name) ref() backends.Ref {
	ref := backends.Ref{Collection: n.collection, Name: n.container, Tag: n.tag}
	if i := strings.LastIndexByte(n.container, '/'); i >= 0 {
		ref.Collection, ref.Name = n.collection+"/"+n.container[:i], n.container[i+1:]
	}
	return ref
}

// stored is the name under which the server stores what is pushed to n. The old
// upload goes through the name parser of the sregistry client, which knows lower
// case only, drops what stands before the last slash, and takes an extension away
// wherever it stands.
func (n name) stored() name {
	return name{normal(n.collection), fold(n.container[strings.LastIndexByte(n.container, '/')+1:]), fold(n.tag)}
}

func fold(s string) string { return strings.ToLower(extensions.ReplaceAllString(s, "")) }

// inLibrary reports whether the library API reads n as n: it has the same parser,
// to which what has a dot before the first slash is a registry, and what begins
// with "sha256" a digest. Of another name it would give another image's bytes.
func (n name) inLibrary() bool {
	return n.container == fold(n.container) && n.tag == fold(n.tag) && n.collection == strings.ToLower(n.collection) &&
		!strings.Contains(n.container, "/") && !strings.Contains(n.collection, ".") && !strings.HasPrefix(n.tag, "sha256")
}

// String is n as it stands in the server's paths: no byte of it needs an escape.
func (n name) String() string { return n.collection + "/" + n.container + ":" + n.tag }

const (
	// maxName is the number of characters the server has room for.
	maxName = 250
	// The old upload has less: for name and tag in a row of its database, which
	// has 200 for "library/NAME:TAG@MD5", and for all three in the path of a file,
	// which has 255 for "/var/www/images/COLLECTION/NAME:TAG@MD5.sif".
	maxUploadRow  = 158
	maxUploadPath = 200
	// dummyTag begins the tags of images that are being uploaded.
	dummyTag = "DUMMY-"
)

var (
	plainPart = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]*$`)
	plainTag  = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z._+-]*$`)
	odd       = regexp.MustCompile(`[^0-9a-zA-Z]+`)

	extensions = regexp.MustCompile(`[.](?:img|simg|sif)`)
)

// normal is a collection's name as the server spells it when it makes one.
func normal(collection string) string {
	return strings.ToLower(strings.Trim(odd.ReplaceAllString(collection, "-"), "-"))
}

// CheckName takes what can stand in a path of the server and be read back.
func (c *client) CheckName(ref backends.Ref) error {
	if ref.Collection == "" {
		return fmt.Errorf("%w: the server has no images outside of collections", fs.ErrInvalid)
	}
	for part := range strings.SplitSeq(ref.Collection+"/"+ref.Name, "/") {
		if !plainPart.MatchString(part) {
			return fmt.Errorf("%w: %q (a part of a name is a letter or digit, then those and \"._-\")", fs.ErrInvalid, part)
		}
	}
	if ref.Tag != "" && !plainTag.MatchString(ref.Tag) || strings.HasPrefix(ref.Tag, dummyTag) {
		return fmt.Errorf("%w: tag %q (letters, digits and \"._+-\")", fs.ErrInvalid, ref.Tag)
	}
	n := split(ref)
	if len(n.collection) > maxName || len(n.container) > maxName || len(n.tag) > maxName {
		return fmt.Errorf("%w: longer than %d characters", fs.ErrInvalid, maxName)
	}
	return nil
}

// Spelling implements backends.Speller.
func (c *client) Spelling(ref backends.Ref) (backends.Ref, error) {
	n := split(ref)
	if c.way == pushUpload {
		if err := n.checkUpload(); err != nil {
			return backends.Ref{}, err
		}
	}
	return n.stored().ref(), nil
}

// checkUpload refuses what the old upload has no room for.
func (n name) checkUpload() error {
	if row := len(n.container) + len(n.tag); row > maxUploadRow || len(n.collection)+row > maxUploadPath {
		return fmt.Errorf("%w: the server's own disk has room for %d characters of name and tag, and %d with the collection", fs.ErrInvalid, maxUploadRow, maxUploadPath)
	}
	return nil
}

var digestForm = regexp.MustCompile(`^(?:(sha256|md5)[.:])?([0-9a-f]{32}|[0-9a-f]{64})$`)

// parseVersion reads the version of a container: "sha256.<hex>", and until the
// server has computed that, the bare MD5. Anything else tells no digest.
func parseVersion(s string) (version, digest string) {
	m := digestForm.FindStringSubmatch(s)
	if m == nil {
		return s, ""
	}
	digest = map[int]string{32: "md5", 64: "sha256"}[len(m[2])] + ":" + m[2]
	if m[1] != "" && m[1]+":"+m[2] != digest {
		return s, ""
	}
	return digest, digest
}
