// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends"
)

// A store keeps manifests on the disk: they never change under their digest, and
// some services (Docker Hub) count each one that is fetched against a quota, but
// not the question which digest a tag has. It keeps which tags were asked for,
// too (of others that question is not worth a request), and what kind of image a
// repository has, which a list of tags does not tell.
//
// Nothing in it is believed without a look, any of it may be missing or damaged,
// and several processes may use it. Without a directory it is empty.
type store struct {
	pack *pack // nil without a directory
	log  *slog.Logger
}

// newStore keeps things in a directory, "" for nowhere.
func newStore(dir string, log *slog.Logger) store {
	if dir == "" {
		return store{log: log}
	}
	return store{pack: newPack(dir), log: log}
}

// maxStored is the size in bytes above which a manifest is not kept.
const maxStored = 256 << 10

// entryOf returns under what it is kept what reference, a tag or a digest, leads to.
// An account may read one repository and not another: each has its own.
func entryOf(repo, reference string) packKey {
	sum := sha256.Sum256([]byte(repo + "\x00" + reference))
	return packKey(sum[:len(packKey{})])
}

// has reports whether a tag was asked for before, or a digest is here.
func (s store) has(repo, reference string) bool {
	return s.pack != nil && s.pack.has(entryOf(repo, reference))
}

// manifest returns the one with that digest, if it is here and whole.
func (s store) manifest(repo, reference string) (manifest, bool) {
	if !isDigest(reference) {
		return manifest{}, false
	}
	mediaType, body, ok := bytes.Cut(s.text(repo, reference), []byte("\n"))
	if !ok || digest.Digest(reference).Algorithm().FromBytes(body).String() != reference {
		return manifest{}, false
	}
	return manifest{digest: reference, mediaType: string(mediaType), body: body}, true
}

// keep stores what reference led to.
func (s store) keep(repo, reference string, m manifest) {
	if len(m.body) > maxStored {
		return
	}
	s.put(repo, m.digest, append([]byte(m.mediaType+"\n"), m.body...))
	if reference != m.digest && !s.has(repo, reference) {
		s.put(repo, reference, nil)
	}
}

// kindOf is no tag and no digest.
const kindOf = "the kind of image"

// kind returns the format of the image of a repository that was seen last, "" if
// none was.
func (s store) kind(repo string) string {
	text := string(s.text(repo, kindOf))
	if !slices.Contains(backends.Formats(), text) {
		return ""
	}
	return text
}

func (s store) keepKind(repo, format string) {
	if format != "" && s.kind(repo) != format {
		s.put(repo, kindOf, []byte(format))
	}
}

// text returns what is kept, nil if nothing is.
func (s store) text(repo, reference string) []byte {
	if s.pack == nil {
		return nil
	}
	return s.pack.get(entryOf(repo, reference))
}

func (s store) put(repo, reference string, text []byte) {
	if s.pack == nil {
		return
	}
	if err := s.pack.put(entryOf(repo, reference), text); err != nil {
		s.log.Debug("a manifest could not be kept", "file", s.pack.path, "err", err)
	}
}
