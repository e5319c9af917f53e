// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// One escape serves URIs and paths: a byte that cannot stand as it is becomes
// "%" and two upper-case hexadecimal digits. Escaped are the percent sign
// itself, "/", ":" and "@" (which separate the parts of a name), control
// characters and all others that nobody can see (see Printable), bytes that are not
// valid UTF-8, and a leading dot, so that nothing a registry holds is ever hidden,
// "." or "..". Everything else stays readable.

const upperHex = "0123456789ABCDEF"

// EscapePart escapes one part of a name: a collection's part, a name, a tag.
// UnescapePart(EscapePart(s)) == s for every s.
func EscapePart(s string) string { return escape(s, "%/:@", true) }

// EscapePath escapes each part of a collection and keeps its slashes.
func EscapePath(collection string) string {
	parts := strings.Split(collection, "/")
	for i, part := range parts {
		parts[i] = EscapePart(part)
	}
	return strings.Join(parts, "/")
}

// escapeLast escapes a tag. At the end of a URI it must not look like a file's
// extension, which ParseRef would drop.
func escapeLast(tag string, atEnd bool) string {
	s := escape(tag, "%/:@", true)
	if cut, _ := CutExt(s); atEnd && cut != s {
		return cut + "%2E" + s[len(cut)+1:]
	}
	return s
}

// escapeVersion keeps the colon of a digest readable: nothing follows a version.
func escapeVersion(version string) string {
	s := escape(version, "%/@", false)
	if cut, _ := CutExt(s); cut != s {
		return cut + "%2E" + s[len(cut)+1:]
	}
	return s
}

// EscapeVersion escapes a version for a path: as EscapePart, but for its colon.
func EscapeVersion(version string) string { return escape(version, "%/@", false) }

func escape(s, special string, leadingDot bool) string {
	if isPlain(s) && (!leadingDot || s == "" || s[0] != '.') {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		bad := r == utf8.RuneError && size == 1 || hidden(r) ||
			r < utf8.RuneSelf && strings.IndexByte(special, s[i]) >= 0 || leadingDot && i == 0 && r == '.'
		for _, c := range []byte(s[i : i+size]) {
			if bad {
				b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
			} else {
				b.WriteByte(c)
			}
		}
		i += size
	}
	return b.String()
}

// isPlain reports whether s has nothing that any escape touches, as nearly all
// names do.
func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c <= 0x20 || c >= 0x7f || c == '%' || c == '/' || c == ':' || c == '@' {
			return false
		}
	}
	return true
}

var errEscape = errors.New("a \"%\" that two hexadecimal digits do not follow (write %25 for the sign itself)")

// UnescapePart is the inverse of EscapePart. It takes any valid escape, also
// one that EscapePart would not have made.
func UnescapePart(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errEscape
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi < 0 || lo < 0 {
			return "", errEscape
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

// UnescapePath is the inverse of EscapePath.
func UnescapePath(path string) (string, error) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		plain, err := UnescapePart(part)
		if err != nil {
			return "", err
		}
		if strings.Contains(plain, "/") {
			return "", errors.New("an escaped \"/\" in a collection")
		}
		parts[i] = plain
	}
	return strings.Join(parts, "/"), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
