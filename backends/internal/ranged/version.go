// SPDX-License-Identifier: Apache-2.0

package ranged

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A version of what is at a URL is what the server says of it:
//
//	"5f3e-1a"                the strong ETag, with its quotes
//	20240229T123005Z-1234    Last-Modified and size, where the ETag is weak or missing
//	W/"5f3e-1a"              a weak ETag, where there is nothing else

const (
	stampLayout = "20060102T150405Z"
	maxTag      = 256 // bytes of an ETag
)

// VersionOf is what the headers of an answer tell about the version of the
// whole, whose size is -1 if it is not known; "" if nothing.
func VersionOf(h http.Header, size int64) string {
	etag := h.Get("ETag")
	if isETag(etag) {
		return etag
	}
	if modified, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		stamp := modified.UTC().Format(stampLayout)
		if size < 0 {
			return stamp
		}
		return fmt.Sprintf("%s-%d", stamp, size)
	}
	if opaque, weak := strings.CutPrefix(etag, "W/"); weak && isETag(opaque) {
		return etag
	}
	return ""
}

// isETag reports whether s is a strong entity tag (RFC 9110, 8.8.3).
func isETag(s string) bool {
	if len(s) < 3 || len(s) > maxTag || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for _, c := range []byte(s[1 : len(s)-1]) {
		if c <= ' ' || c == '"' || c == 0x7f {
			return false
		}
	}
	return true
}

// Conditions are the headers that ask for the bytes of the server's version, which
// VersionOf gave.
//
// Errors: backends.ErrChanged if it gave no such one.
func Conditions(version string) (http.Header, error) {
	opaque, weak := strings.CutPrefix(version, "W/")
	switch stamp, _, _ := strings.Cut(version, "-"); {
	case version == "", weak && isETag(opaque):
		// If-Match compares strongly: no weak tag ever matches (RFC 9110, 13.1.1).
		return nil, nil
	case isETag(version):
		return http.Header{"If-Match": {version}}, nil
	default:
		modified, err := time.Parse(stampLayout, stamp)
		if err != nil {
			return nil, fmt.Errorf("%w: %.80q is no version of a web server", backends.ErrChanged, version)
		}
		return http.Header{"If-Unmodified-Since": {modified.UTC().Format(http.TimeFormat)}}, nil
	}
}

// SameVersion reports whether an answer about a whole of that size is of version. Not
// every server looks at conditions, so the answer is compared too; one that says
// nothing here was asked at least.
func SameVersion(h http.Header, size int64, version string) bool {
	now := VersionOf(h, size)
	return now == version || now == "" || version == ""
}
