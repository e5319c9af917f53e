// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
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
	dir string
	log *slog.Logger
}

// maxStored is the size in bytes above which a manifest is not kept.
const maxStored = 256 << 10

// file returns where what reference, a tag or a digest, leads to is kept. An
// account may read one repository and not another: each has its own.
func (s store) file(repo, reference string) string {
	sum := sha256.Sum256([]byte(repo + "\x00" + reference))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(s.dir, "manifests", name[:2], name)
}

// has reports whether a tag was asked for before, or a digest is here.
func (s store) has(repo, reference string) bool {
	if s.dir == "" {
		return false
	}
	_, err := os.Lstat(s.file(repo, reference))
	return err == nil
}

// manifest returns the one with that digest, if it is here and whole.
func (s store) manifest(repo, reference string) (manifest, bool) {
	if s.dir == "" || !isDigest(reference) {
		return manifest{}, false
	}
	text, err := os.ReadFile(s.file(repo, reference))
	mediaType, body, ok := bytes.Cut(text, []byte("\n"))
	if err != nil || !ok || digest.Digest(reference).Algorithm().FromBytes(body).String() != reference {
		return manifest{}, false
	}
	return manifest{digest: reference, mediaType: string(mediaType), body: body}, true
}

// keep stores what reference led to.
func (s store) keep(repo, reference string, m manifest) {
	if s.dir == "" || len(m.body) > maxStored {
		return
	}
	s.write(s.file(repo, m.digest), append([]byte(m.mediaType+"\n"), m.body...))
	if reference != m.digest {
		s.write(s.file(repo, reference), nil)
	}
}

// kindOf is no tag and no digest.
const kindOf = "the kind of image"

// kind returns the format of the image of a repository that was seen last, "" if
// none was.
func (s store) kind(repo string) string {
	if s.dir == "" {
		return ""
	}
	text, err := os.ReadFile(s.file(repo, kindOf))
	if err != nil || !slices.Contains(backends.Formats(), string(text)) {
		return ""
	}
	return string(text)
}

func (s store) keepKind(repo, format string) {
	if s.dir != "" && format != "" && s.kind(repo) != format {
		s.write(s.file(repo, kindOf), []byte(format))
	}
}

// write replaces a file as a whole. It need not be durable.
func (s store) write(path string, text []byte) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(filepath.Dir(path), ".new-*")
	}
	if err == nil {
		_, err = f.Write(text)
		f.Close()
		if err == nil {
			err = os.Rename(f.Name(), path)
		}
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}
	if err != nil {
		s.log.Debug("a manifest could not be kept", "file", path, "err", err)
	}
}
