// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"
)

// commandsPage returns docs/commands.md.
func commandsPage(pages []page) string {
	var w strings.Builder
	fmt.Fprint(&w, "# Commands\n\nWhat `sreg --help` and `sregfs --help` say, and the man pages. This page is made from the programs: `make docs` writes it.\n\n")
	fmt.Fprint(&w, "| command | |\n|---|---|\n")
	for _, p := range pages {
		fmt.Fprintf(&w, "| [`%s`](#%s) | %s |\n", p.title, p.name, markdownText(p.short))
	}
	for _, p := range pages {
		fmt.Fprintf(&w, "\n## `%s`\n\n%s.\n\n```\n%s\n```\n", p.title, markdownText(p.short), strings.Join(p.synopsis, "\n"))
		for _, part := range p.parts {
			part.markdown(&w)
		}
	}
	return w.String()
}

func (p *part) markdown(w *strings.Builder) {
	if p.heading != "Description" && len(p.blocks) > 0 {
		fmt.Fprintf(w, "\n**%s**\n", p.heading)
	}
	last := paragraph
	for _, b := range p.blocks {
		if b.kind != item || last != item {
			fmt.Fprintln(w)
		}
		last = b.kind
		switch b.kind {
		case item:
			fmt.Fprintf(w, "* `%s`: %s\n", b.term, markdownSpans(b.text))
		case literal:
			fmt.Fprintf(w, "```\n%s\n```\n", b.text)
		default:
			fmt.Fprintf(w, "%s\n", markdownSpans(b.text))
		}
	}
}

func markdownSpans(text string) string {
	var w strings.Builder
	for i, span := range spans(text) {
		if i%2 == 1 {
			w.WriteString("`" + span + "`")
		} else {
			w.WriteString(markdownText(span))
		}
	}
	return w.String()
}

var markdownEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, `[`, `\[`, `]`, `\]`, `|`, `\|`, `#`, `\#`)

func markdownText(text string) string { return markdownEscaper.Replace(text) }
