// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
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
		if got := Printable(c.in); got != c.want {
			t.Errorf("Printable(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b]0;title\a")
	f.Add("plain")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("Printable(%q) = %q", s, got)
		}
	})
}

// What is shown in JSON means the same, and obeys nobody.
func TestPrintableJSON(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"plain", "größe 図", "evil\u202egnp.sif", "c1 \u009b31m", "del \x7f", "\x1b[2J", "zero\u200bwidth", "\U000e0041tag", "nl\nand\ttab",
	} {
		text, err := json.MarshalIndent(map[string]string{s: s}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got := PrintableJSON(text)
		var back map[string]string
		if err := json.Unmarshal(got, &back); err != nil || back[s] != s {
			t.Errorf("%q: %s, %v", s, got, err)
		}
		if i := strings.IndexFunc(string(got), func(r rune) bool { return hidden(r) && r != '\n' }); i >= 0 {
			t.Errorf("%q: %q", s, got)
		}
	}
}

// Names are shown as they are written in a URI: nothing hidden is in them, and they
// come back.
func TestEscapePart_hidden(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"evil\u202egnp", "\u2066x", "a\u200db", "c1\u009b31m", "\u2028line", "\ufeffbom", "soft\u00adhyphen"} {
		got := EscapePart(s)
		back, err := UnescapePart(got)
		if err != nil || back != s || Printable(got) != got {
			t.Errorf("EscapePart(%q) = %q, back %q, %v", s, got, back, err)
		}
	}
}
