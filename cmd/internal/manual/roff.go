// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"

	"github.com/sregfs/sregfs/cmd/internal/version"
)

// roff returns the page as man(7) has it. date is YYYY-MM-DD.
func (p *page) roff(date string) string {
	var w strings.Builder
	fmt.Fprintf(&w, ".\\\" Generated from the program's help: see cmd/internal/manual.\n")
	fmt.Fprintf(&w, ".TH %s %s %s \"sregfs %s\" \"sregfs manual\"\n", roffText(strings.ToUpper(p.name)), p.section, date, version.Release)
	fmt.Fprintf(&w, ".nh\n.ad l\n.SH NAME\n%s \\- %s\n", roffText(p.name), roffText(p.short))
	if len(p.synopsis) > 0 {
		fmt.Fprintf(&w, ".SH SYNOPSIS\n")
	}
	for i, line := range p.synopsis {
		if i > 0 {
			fmt.Fprintf(&w, ".br\n")
		}
		name, rest, _ := strings.Cut(line, " ")
		fmt.Fprintf(&w, "%s\n", roffLine(`\fB`+roffText(name)+`\fR `+roffText(rest)))
	}
	for _, part := range p.parts {
		fmt.Fprintf(&w, ".SH %s\n", strings.ToUpper(roffText(part.heading)))
		first := true // a heading is followed by room of its own
		for _, b := range part.blocks {
			b.roff(&w, first)
			first = b.kind == subheading
		}
	}
	if len(p.also) > 0 {
		fmt.Fprintf(&w, ".SH SEE ALSO\n")
		for i, other := range p.also {
			name, section, _ := strings.Cut(strings.TrimSuffix(other, ")"), "(")
			comma := ","
			if i == len(p.also)-1 {
				comma = ""
			}
			fmt.Fprintf(&w, ".BR %s (%s)%s\n", roffText(name), section, comma)
		}
	}
	return w.String()
}

func (b *block) roff(w *strings.Builder, first bool) {
	switch b.kind {
	case subheading:
		fmt.Fprintf(w, ".SS %s\n", roffText(b.text))
	case item:
		fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s\n", roffText(b.term), roffSpans(b.text))
	case literal:
		if !first {
			fmt.Fprintf(w, ".PP\n")
		}
		fmt.Fprintf(w, ".RS 4\n.nf\n%s\n.fi\n.RE\n", roffLines(roffText(b.text)))
	default:
		if !first {
			fmt.Fprintf(w, ".PP\n")
		}
		fmt.Fprintf(w, "%s\n", roffSpans(b.text))
	}
}

// roffSpans is running text, with code in bold.
func roffSpans(text string) string {
	var w strings.Builder
	for i, span := range spans(text) {
		if i%2 == 1 {
			w.WriteString(`\fB` + breakable(roffText(span)) + `\fR`)
		} else {
			w.WriteString(breakable(roffText(span)))
		}
	}
	return roffLines(w.String())
}

// maxWord is the longest word that fits into a list's item on 80 columns.
const maxWord = 50

// breakable lets a line end within a word that is too long for one, as an address.
func breakable(text string) string {
	words := strings.Split(text, " ")
	for i, word := range words {
		if len(word) > maxWord {
			words[i] = strings.NewReplacer("/", `/\:`, ",", `,\:`, "=", `=\:`).Replace(word)
		}
	}
	return strings.Join(words, " ")
}

// roffEscaper keeps characters that roff would take for others: a hyphen is a minus, so
// that an option can be copied out of the page, and quotes stay straight.
var roffEscaper = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...", `"`, `\(dq`)

func roffText(text string) string { return roffEscaper.Replace(text) }

// roffLines makes sure that no line is taken for a request, and none is empty.
func roffLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = roffLine(line)
	}
	return strings.Join(lines, "\n")
}

func roffLine(line string) string {
	if line == "" || line[0] == '.' || line[0] == '\'' {
		return `\&` + line
	}
	return line
}
