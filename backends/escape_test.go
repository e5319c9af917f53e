// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscapePart(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "plain-1.0_x+y": "plain-1.0_x+y", "größe 画像": "größe 画像", "a/b": "a%2Fb", "a:b@c": "a%3Ab%40c", "100%": "100%25",
		".": "%2E", "..": "%2E.", ".x": "%2Ex", "x.": "x.", "a\nb": "a%0Ab", "\x7f": "%7F", "\u0085": "%C2%85", "\xff": "%FF", "\x00": "%00",
	} {
		if got := EscapePart(in); got != want {
			t.Errorf("EscapePart(%q) = %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"%", "%2", "%g0", "a%"} {
		if got, err := UnescapePart(in); err == nil {
			t.Errorf("UnescapePart(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a/b", "%41", ".", "..", "\xff\xfe", "a\u0085", "é", "\U0010ffff", "x@y:z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := EscapePart(s)
		if got, err := UnescapePart(escaped); err != nil || got != s {
			t.Errorf("UnescapePart(%q) = %q, %v, want %q", escaped, got, err, s)
		}
		if strings.ContainsAny(escaped, "/:@\x00\n") || strings.HasPrefix(escaped, ".") || !utf8.ValidString(escaped) {
			t.Errorf("EscapePart(%q) = %q", s, escaped)
		}
		version := EscapeVersion(s)
		if got, err := UnescapePart(version); err != nil || got != s {
			t.Errorf("UnescapePart(%q) = %q, %v, want %q", version, got, err, s)
		}
		if path, err := UnescapePath(EscapePath(s)); err != nil || path != s {
			t.Errorf("UnescapePath(%q) = %q, %v, want %q", EscapePath(s), path, err, s)
		}
	})
}
