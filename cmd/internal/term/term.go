// SPDX-License-Identifier: Apache-2.0

// Package term is what the commands must know about the terminal: whether one is
// there, and how a name that a registry chose is shown on it without harm. It is
// no terminal library: it draws nothing.
package term

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape returns s with everything that is not meant to be seen written as in a
// Go string: control characters (an escape sequence could rewrite the screen),
// invalid UTF-8, and the marks that reverse the direction of text.
func Escape(s string) string {
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

func hidden(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
