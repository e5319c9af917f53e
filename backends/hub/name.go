// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// CheckName takes what can be an organisation, a repository and a tag here. The
// tag may have slashes and colons: it comes from the name of a recipe's file or
// of its directory.
func (c *client) CheckName(ref backends.Ref) error { return checkName(ref) }

func checkName(ref backends.Ref) error {
	switch {
	case ref.Collection == "" || strings.Contains(ref.Collection, "/"):
		return fmt.Errorf("%w: a name here is organisation/repository:tag", fs.ErrInvalid)
	case strings.Contains(ref.Name, ":") || strings.Contains(ref.Name, "/"):
		return fmt.Errorf("%w: %q cannot be the name of a repository", fs.ErrInvalid, ref.Name)
	case ref.Tag != "" && !isPath(ref.Tag):
		return fmt.Errorf("%w: tag %q cannot be part of a path", fs.ErrInvalid, ref.Tag)
	}
	return nil
}

// isPath reports whether s is parts joined by slashes, each of which names
// something below the one before.
func isPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || strings.IndexByte(part, 0) >= 0 {
			return false
		}
	}
	return true
}

var versionForm = regexp.MustCompile(`^(?:(md5|sha256)[:.])?([0-9a-f]{32}|[0-9a-f]{64})$`)

// parseVersion reads a version: the MD5 of an image, or of later ones the
// SHA-256, in hexadecimal with or without its name before it. It returns the
// bare digits, which is how the archive writes it; "" for what is none.
func parseVersion(s string) string {
	m := versionForm.FindStringSubmatch(strings.ToLower(s))
	if m == nil || m[1] != "" && m[1] != algorithm(m[2]) {
		return ""
	}
	return m[2]
}

// algorithm returns what made a version, which only its length tells.
func algorithm(version string) string {
	if len(version) == 64 {
		return "sha256"
	}
	return "md5"
}
