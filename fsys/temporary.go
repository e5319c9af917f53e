// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// isTemporary reports whether a file of that name stays here until it is
// renamed: the names that copying tools and editors write to before they rename,
// and all that cannot be an image.
//
// A leading dot covers rsync (.NAME.XXXXXX), vi, NFS, GLib and FUSE; EscapePart
// sees to it that no image's name begins with one. "image:tag" without an
// extension is an image, so that nobody copies to it in vain.
func isTemporary(name string) bool {
	if strings.HasPrefix(name, ".") {
		return true
	}
	rest, format := backends.CutExt(name)
	if format != "" {
		// apptainer pull copies to tmp-copy-NNN beside its target.
		return strings.HasPrefix(rest, "tmp-copy-") && !strings.Contains(rest, ":")
	}
	if !strings.Contains(name, ":") || strings.Contains(name, ".sif") || strings.Contains(name, ".simg") {
		return true
	}
	if strings.Contains(name, ".pulling.") {
		return true
	}
	for _, suffix := range []string{"~", ".part", ".partial", ".filepart", ".tmp", ".crdownload", ".lock"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
