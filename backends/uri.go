// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"fmt"
	"io/fs"
	"strings"
)

// A URI names an image of some remote: "remote://collection/name:tag[@version]".
type URI struct {
	Remote string // "" if not said; a host, if no remote has that name, see CheckHost
	// Host is the registry host in a URI without a remote, as in
	// "quay.io/foo/bar:1.0": the first of several parts, if it contains a dot or
	// a colon or is "localhost". Ref is then what follows it.
	Host string
	Ref  Ref
	// Bare says that no collection was written and Ref has the default one.
	Bare bool
}

// String returns the URI as ParseURI takes it.
func (u URI) String() string {
	switch {
	case u.Remote != "":
		return u.Remote + "://" + u.Ref.String()
	case u.Host != "":
		return u.Host + "/" + u.Ref.String()
	}
	return notHost(u.Ref.String())
}

// notHost escapes a collection that would be taken for a host.
func notHost(ref string) string {
	first, rest, ok := strings.Cut(ref, "/")
	if !ok || !looksLikeHost(first) {
		return ref
	}
	if first == "localhost" {
		return "%6Cocalhost/" + rest
	}
	return strings.ReplaceAll(first, ".", "%2E") + "/" + rest
}

// ParseURI reads "[remote://][host/][collection/]name[:tag][@version]". After
// "remote://" nothing is taken for a host, so that any name can be said.
//
// Errors: fs.ErrInvalid, with the reason.
func ParseURI(s string) (URI, error) {
	var u URI
	rest := s
	if i := strings.Index(s, "://"); i >= 0 {
		u.Remote, rest = s[:i], s[i+3:]
		if err := CheckRemoteName(u.Remote); err != nil && CheckHost(u.Remote) != nil {
			return URI{}, fmt.Errorf("%q: %w", s, err)
		}
	} else if first, after, ok := strings.Cut(rest, "/"); ok && looksLikeHost(first) {
		u.Host, rest = first, after
	}
	u.Bare = versionSlash(rest) < 0
	var err error
	if u.Ref, err = ParseRef(rest); err != nil {
		return URI{}, err
	}
	return u, nil
}

func looksLikeHost(part string) bool {
	name, port, hasPort := strings.Cut(part, ":")
	if hasPort {
		return name != "" && port != "" && strings.Trim(port, "0123456789") == ""
	}
	return part == "localhost" || strings.Contains(strings.Trim(part, "."), ".")
}

// CheckRemoteName returns fs.ErrInvalid unless name can be the name of a
// remote: a letter or digit, then letters, digits, "-", "_" or ".", at most 64.
func CheckRemoteName(name string) error {
	ok := 0 < len(name) && len(name) <= 64
	for i, c := range []byte(name) {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		ok = ok && (alnum || i > 0 && strings.IndexByte("-_.", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%w: remote name %q (letters, digits, \"-\", \"_\", \".\")", fs.ErrInvalid, name)
	}
	return nil
}
