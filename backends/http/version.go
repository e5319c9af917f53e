// SPDX-License-Identifier: Apache-2.0

package http

import (
	"fmt"
	"strings"
	"time"
)

// What a version looks like:
//
//	sha256:…                 the digest that the server's list of digests tells
//	"5f3e-1a"                the strong ETag, with its quotes
//	20240229T123005Z-1234    Last-Modified and size, where the ETag is weak or missing
//	W/"5f3e-1a"              a weak ETag, where there is nothing else
//
// A digest is no condition that a server knows. For an image with one the server's
// own version is remembered, and asked for again after a restart.

// digestVersion reports whether version is a digest.
func digestVersion(version string) bool { return strings.HasPrefix(version, "sha256:") }

// nginxTag is the ETag that nginx gives to a file: its index in JSON tells time and
// size, and so the version (ngx_http_set_etag).
func nginxTag(modified time.Time, size int64) string {
	return fmt.Sprintf(`"%x-%x"`, modified.Unix(), size)
}
