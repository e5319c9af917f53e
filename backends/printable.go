// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable returns s with everything that is not meant to be seen written as in a
// Go string: control characters, also those from U+0080 on (an escape sequence could
// rewrite the screen), invalid UTF-8, and the marks that reverse the direction of
// text. Whatever a registry chose is shown to people by it.
func Printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if hidden(r) || r == utf8.RuneError && size == 1 {
			quoted := strconv.QuoteToASCII(s[i : i+size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// PrintableJSON is Printable for JSON text, in which what is hidden becomes \u and
// four digits: it means the same as before. The spaces between values stay.
func PrintableJSON(text []byte) []byte {
	hiddenThere := func(r rune) bool { return r >= 0x7f && hidden(r) }
	if strings.IndexFunc(string(text), hiddenThere) < 0 {
		return text
	}
	b := make([]byte, 0, len(text)+64)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if hiddenThere(r) {
			for _, unit := range utf16.Encode([]rune{r}) {
				b = append(b, '\\', 'u', lowerHex[unit>>12], lowerHex[unit>>8&15], lowerHex[unit>>4&15], lowerHex[unit&15])
			}
		} else {
			b = append(b, text[i:i+size]...)
		}
		i += size
	}
	return b
}

const lowerHex = "0123456789abcdef"

func hidden(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
