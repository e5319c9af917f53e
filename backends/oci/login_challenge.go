// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"net/http"
	"regexp"
	"strings"
)

const challengeHeader = "Www-Authenticate"

// oneChallenge leaves in a refusal the one challenge that can be answered: oras-go
// looks at the first alone, and some servers and the proxies before them offer
// Negotiate or Digest first (RFC 9110, 11.6.1: several headers, or one with commas).
// A token goes before a password: there are some for nobody in particular, too.
func oneChallenge(h http.Header) {
	bearer, basic := "", ""
	for _, challenge := range challenges(h.Values(challengeHeader)) {
		scheme, params, _ := strings.Cut(challenge, " ")
		switch {
		case bearer == "" && strings.EqualFold(scheme, "bearer") && strings.Contains(params, "realm="):
			bearer = challenge
		case basic == "" && strings.EqualFold(scheme, "basic"):
			basic = challenge
		}
	}
	switch {
	case bearer != "":
		h.Set(challengeHeader, bearer)
	case basic != "":
		h.Set(challengeHeader, basic)
	}
}

// param matches a parameter of a challenge: what is none begins another challenge.
var param = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*([^= \t].*)$")

// challenges splits headers into challenges, the names of their parameters in lower
// case.
func challenges(headers []string) []string {
	var all []string
	for _, rest := range headers {
		for rest != "" {
			end := paramsEnd(rest)
			item := strings.Trim(rest[:end], " \t")
			rest = strings.TrimPrefix(rest[end:], ",")
			scheme, first := "", item
			if !param.MatchString(item) {
				scheme, first, _ = strings.Cut(item, " ")
			}
			first = strings.TrimLeft(first, " \t")
			if m := param.FindStringSubmatch(first); m != nil {
				first = strings.ToLower(m[1]) + "=" + m[2]
			}
			switch {
			case item == "":
			case scheme != "":
				all = append(all, strings.TrimRight(scheme+" "+first, " "))
			case len(all) > 0:
				all[len(all)-1] += "," + first
			}
		}
	}
	return all
}
