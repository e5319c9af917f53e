// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
)

// The grammar is that of the OCI distribution specification 1.1, "Pulling
// manifests". Its length limit counts the host with the repository; registries
// count the repository alone.
var (
	partRule = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	tagRule  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	archRule = regexp.MustCompile(`^[a-z0-9]+(?:[_-][a-z0-9]+)*(?:/v[0-9]+)?$`)

	digestRule = regexp.MustCompile(`^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

	// A tag of this form lists what refers to a digest where the registry has
	// no referrers API; cosign's signatures are named so too.
	referrersTag = regexp.MustCompile(`^sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})`)
)

const maxRepository = 255

// CheckName returns fs.ErrInvalid unless ref can be a repository and a tag.
func (c *client) CheckName(ref backends.Ref) error {
	if strings.Contains(ref.Name, "/") {
		return fmt.Errorf("%w: %q: an OCI repository cannot hold a \"/\" that is no separator", fs.ErrInvalid, ref.Name)
	}
	repo := c.repository(ref)
	if err := checkRepository(repo); err != nil {
		return err
	}
	if rule := c.preset.names; rule != nil && (!rule.MatchString(repo) || len(repo) < 2) {
		return fmt.Errorf("%w: %q: %s", fs.ErrInvalid, repo, c.preset.namesSaid)
	}
	if ref.Tag != "" && !tagRule.MatchString(ref.Tag) {
		return fmt.Errorf("%w: tag %q: an OCI tag has up to 128 letters, digits, \"_\", \".\" or \"-\" and does not begin with \".\" or \"-\"",
			fs.ErrInvalid, ref.Tag)
	}
	if ref.Version != "" && !isDigest(ref.Version) && !isArchive(ref.Version) && !archRule.MatchString(ref.Version) {
		return fmt.Errorf("%w: version %q: want a digest (sha256:…) or an architecture (arm64)", fs.ErrInvalid, ref.Version)
	}
	return nil
}

func checkRepository(repo string) error {
	if len(repo) > maxRepository {
		return fmt.Errorf("%w: an OCI repository name has at most %d bytes", fs.ErrInvalid, maxRepository)
	}
	for part := range strings.SplitSeq(repo, "/") {
		if !partRule.MatchString(part) {
			return fmt.Errorf("%w: %q: OCI names are lower-case letters and digits, with single \".\", \"_\", \"__\" or \"-\" between them",
				fs.ErrInvalid, part)
		}
	}
	return nil
}

func isArchive(s string) bool {
	sum, ok := strings.CutPrefix(s, archive.Algorithm+":")
	return ok && isDigest("sha256:"+sum)
}

func isDigest(s string) bool { return digestRule.MatchString(s) }

// repository returns the name by which the registry knows ref.
func (c *client) repository(ref backends.Ref) string {
	if c.namespace == "" {
		return ref.Repository()
	}
	return c.namespace + "/" + ref.Repository()
}
