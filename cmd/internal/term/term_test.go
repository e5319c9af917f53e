// SPDX-License-Identifier: Apache-2.0

package term

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"lab://vsoch/hello:2.0", "lab://vsoch/hello:2.0"},
		{"größe 図", "größe 図"},
		{"\x1b[2Jgone", `\x1b[2Jgone`},
		{"two\nlines\r\ttab", `two\nlines\r\ttab`},
		{"bad \xff byte", `bad \xff byte`},
		{"evil\u202egnp.sif", `evil\u202egnp.sif`},
		{"c1 \u009b31m", `c1 \u009b31m`},
		{"zero\u200bwidth", `zero\u200bwidth`},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("\x1b]0;title\a")
	f.Add("plain")
	f.Fuzz(func(t *testing.T, s string) {
		got := Escape(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("Escape(%q) = %q", s, got)
		}
	})
}
