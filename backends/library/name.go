// SPDX-License-Identifier: Apache-2.0

package library

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
)

// A name is an image in the library's words: library://entity/collection/container:tag.
// Our collection is entity and collection; of one part it is the entity, whose
// collection "default" is meant, as it is by "library://alpine" for
// library/default/alpine.
type name struct{ entity, collection, container, tag string }

// defaultCollection is what the server takes for a collection that is not said.
const defaultCollection = "default"

func split(ref backends.Ref) name {
	entity, collection, ok := strings.Cut(ref.Collection, "/")
	if !ok {
		collection = defaultCollection
	}
	return name{entity, collection, ref.Name, ref.Tag}
}

// ref is the shortest that split makes n of.
func (n name) ref() backends.Ref {
	return backends.Ref{Collection: join(n.entity, n.collection), Name: n.container, Tag: n.tag}
}

// join is our name of a collection.
func join(entity, collection string) string {
	if collection == defaultCollection {
		return entity
	}
	return entity + "/" + collection
}

// container is n as the library's paths have it. CheckName lets nothing through
// that would need an escape.
func (n name) path() string { return n.entity + "/" + n.collection + "/" + n.container }

func (n name) String() string { return n.path() + ":" + n.tag }

// The grammar of names is that of definitions in the library's api/server/openapi.yml.
// For tags it has none; its clients write "latest,1.0" for two.
var (
	partRule = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	tagRule  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$`)
	hashRule = regexp.MustCompile(`^(?:sha256\.[0-9a-f]{64}|sif\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	archRule = regexp.MustCompile(`^[a-z0-9]+(?:_[a-z0-9]+)*$`)
)

const (
	partWords = "lower-case letters and digits, with single \".\", \"_\" or \"-\" between them"
	maxName   = 255 // maxLength of openapi.yml
)

// tooDeep reports whether the library could have no collection of that name.
func tooDeep(collection string) bool { return strings.Count(collection, "/") > 1 }

// CheckName returns fs.ErrInvalid unless ref can be a name in a library.
func (c *client) CheckName(ref backends.Ref) error {
	if ref.Collection == "" {
		return fmt.Errorf("%w: a library has no images outside of entities", fs.ErrInvalid)
	}
	if tooDeep(ref.Collection) {
		return fmt.Errorf("%w: %q: a library has names of three parts, entity/collection/container", fs.ErrInvalid, ref.Repository())
	}
	for _, part := range append(strings.Split(ref.Collection, "/"), ref.Name) {
		if !partRule.MatchString(part) || len(part) > maxName {
			return fmt.Errorf("%w: %.300q: a part of a name is %s, %d at most", fs.ErrInvalid, part, partWords, maxName)
		}
	}
	if ref.Tag != "" && (!tagRule.MatchString(ref.Tag) || hashRule.MatchString(ref.Tag)) {
		return fmt.Errorf("%w: tag %.300q: up to 128 letters, digits and \"._+-\", and no digest", fs.ErrInvalid, ref.Tag)
	}
	if ref.Version != "" && hashOf(ref.Version) == "" && !isArchive(ref.Version) && !archRule.MatchString(ref.Version) {
		return fmt.Errorf("%w: version %.300q: want a digest (sha256:…) or an architecture (arm64)", fs.ErrInvalid, ref.Version)
	}
	return nil
}

// isArchive reports whether a version is the digest of an archive of a container image.
func isArchive(version string) bool {
	sum, ok := strings.CutPrefix(version, archive.Algorithm+":")
	return ok && hashOf("sha256:"+sum) != ""
}

// hashOf returns a version as the library writes it, "sha256.<hex>" (or
// "sif.<uuid>", as old images have it); "" for what is none.
func hashOf(version string) string {
	hash := version
	if hex, ok := strings.CutPrefix(version, "sha256:"); ok {
		hash = "sha256." + hex
	}
	if !hashRule.MatchString(hash) {
		return ""
	}
	return hash
}

// versionOf is the inverse of hashOf, and tells the digest where there is one.
func versionOf(hash string) (version, digest string, ok bool) {
	if !hashRule.MatchString(hash) {
		return "", "", false
	}
	if hex, isDigest := strings.CutPrefix(hash, "sha256."); isDigest {
		return "sha256:" + hex, "sha256:" + hex, true
	}
	return hash, "", true
}
