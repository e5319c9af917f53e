// SPDX-License-Identifier: Apache-2.0

package library

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// An apiVersion is a semantic version, https://semver.org. The zero value is
// before all others.
type apiVersion struct {
	numbers [3]int
	before  []string // the identifiers of a pre-release
}

// What a library can do from these versions on (scs-library-client,
// client/version.go).
var (
	withUpload   = apiVersion{numbers: [3]int{2}, before: []string{"alpha", "1"}}
	withArchTags = apiVersion{numbers: [3]int{2}, before: []string{"alpha", "2"}}
)

var versionForm = regexp.MustCompile(`^v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,100}))?(?:\+.*)?$`)

// parseVersion returns the zero version for what is none.
func parseVersion(s string) apiVersion {
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		return apiVersion{}
	}
	var v apiVersion
	for i := range v.numbers {
		v.numbers[i], _ = strconv.Atoi(m[i+1]) // nine digits at most
	}
	if m[4] != "" {
		v.before = strings.Split(m[4], ".")
	}
	return v
}

// atLeast compares by the rules of semver.org, 11.
func (v apiVersion) atLeast(w apiVersion) bool {
	for i := range v.numbers {
		if d := cmp.Compare(v.numbers[i], w.numbers[i]); d != 0 {
			return d > 0
		}
	}
	if len(v.before) == 0 || len(w.before) == 0 {
		return len(v.before) == 0
	}
	for i := range min(len(v.before), len(w.before)) {
		if d := compareIdentifiers(v.before[i], w.before[i]); d != 0 {
			return d > 0
		}
	}
	return len(v.before) >= len(w.before)
}

// compareIdentifiers puts numbers before words.
func compareIdentifiers(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	switch {
	case errX == nil && errY == nil:
		return cmp.Compare(x, y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return strings.Compare(a, b)
}
